"""Files of LoRA: kohya's, diffusers', PEFT's and AnimateDiff's, for the U-Net, its motion modules and the text encoder.

What a file holds beside, and what of it the model does not have, is told or refused, never skipped.
"""

import dataclasses
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import safe_open

from gen1_jax.errors import UserError, counted
from gen1_jax.pretrained.lora_names import COMPONENTS, PEFT_PREFIXES, Target
from gen1_jax.pretrained.subject import IN_HEADER, Subject
from gen1_jax.pretrained.tensors import checkpoint_files, is_floating, read_json, stored_tensors

_FACTOR = re.compile(
    r"""(?P<module> .+?)
    (?: \.lora_(?P<kohya> down|up)\.weight
      | \.lora_(?P<peft> [AB])(\.\w+)?\.weight
      | (?: (?<=_lora) | \.lora | \.lora_linear_layer)\.(?P<diffusers> down|up)\.weight
      | (?: \.lora | \.lora_linear_layer)?\.(?P<alpha> alpha))
    """,
    re.VERBOSE,
)
_ROLES = {"A": "down", "B": "up"}

_OTHERS = (
    (r"\.lora_mid\.weight$", "LoCon with a Tucker decomposition (lora_mid)"),
    (r"\.hada_[wt]\d", "LoHa"),
    (r"\.lokr_[wt]\d", "LoKr"),
    (r"\.dora_scale$|\.lora_magnitude_vector", "DoRA"),
    (r"\.b?oft_\w+", "OFT"),
    (r"\.diff(_b)?$|\.set_weight$", "whole differences of weights (.diff)"),
    (r"\.[ab][12]\.weight$", "GLoRA"),
    (r"\.on_input$|\.ia3_l\b", "IA3"),
    (r"^\w+:\d+:(up|down)$", "a LoRA of 2022 that numbers its layers (cloneofsimo/lora)"),
    (r"^lora_controlnet$", "a Control-LoRA"),
    (r"^emb_params$|^string_to_param\b", "a textual inversion"),
    (r"\.to_[kv]_ip\.", "an IP-Adapter"),
    (r"^(model\.diffusion_model|first_stage_model|cond_stage_model|conditioner)\.", "a whole checkpoint"),
)
"""What else such files may hold, by its keys."""

_WIDTHS = {2048: "Stable Diffusion XL", 1024: "Stable Diffusion 2"}
"""Widths of text that other models attend to."""

_BESIDE, _INSIDE = "adapter_config.json", "lora_adapter_metadata"  # PEFT's configuration, as a file and in a header
_SHOWN = 3


class LoRAError(UserError):
    """A file is no LoRA that can be merged, or one for another model. One line that names it."""


@dataclasses.dataclass(frozen=True)
class Delta:
    """The change of one kernel at strength 1: scale * up @ down.

    Attributes:
        target: the kernel.
        down: (rank, in[, kh, kw]).
        up: (out, rank[, 1, 1]).
        scale: alpha / rank.
    """

    target: Target
    down: Any
    up: Any
    scale: float

    def kernel(self) -> np.ndarray:
        """The change as our kernel, float32."""
        down, up = self._matrices(np.float32)
        return self.target.ours(np.float32(self.scale) * (up @ down).reshape(_weight_shape(self.down, self.up)))

    def norm(self) -> float:
        """The Frobenius norm of the change, without multiplying it out."""
        down, up = self._matrices(np.float64)
        return abs(self.scale) * math.sqrt(max(0.0, np.sum((up.T @ up) * (down @ down.T))))

    def _matrices(self, dtype: type) -> tuple[np.ndarray, np.ndarray]:
        down, up = np.asarray(self.down).astype(dtype), np.asarray(self.up).astype(dtype)
        return down.reshape(down.shape[0], -1), up.reshape(up.shape[0], -1)


@dataclasses.dataclass(frozen=True)
class LoRA:
    """A file's changes of a model.

    Attributes:
        name: of the file.
        deltas: by network and by path of the kernel.
        unmatched: names of modules in the file that the model does not have.
        files: where it was read from.
        subject: that it shows, if it says so.
    """

    name: str
    deltas: Mapping[str, Mapping[str, Delta]]
    unmatched: tuple[str, ...]
    files: tuple[Path, ...] = ()
    subject: Subject | None = None

    @property
    def report(self) -> str | None:
        """One line on what is left out, or None."""
        if not self.unmatched:
            return None
        matched = sum(map(len, self.deltas.values()))
        return (
            f"{self.name}: {len(self.unmatched)} of its {matched + len(self.unmatched)} modules are left out, for this "
            f"model has none of such names: {_some(self.unmatched)}"
        )


def read_lora(path: str | Path, targets: Mapping[str, Target]) -> LoRA:
    """The LoRA in a safetensors file, or in a folder of one. Factors are read when they are used.

    Raises:
        FolderError: see `checkpoint_files`.
        LoRAError: see `lora_of`.
    """
    path = Path(path)
    (file, *_) = files = checkpoint_files(path)
    tensors = stored_tensors(files)
    metadata = safe_open(file, framework="numpy").metadata() or {}
    beside = file.with_name(_BESIDE)
    is_peft = any(".lora_A." in name for name in tensors)
    has_config = is_peft and beside.is_file()
    adapter = read_json(beside) if has_config else None
    files = (*files, beside) if has_config else tuple(files)
    return dataclasses.replace(lora_of(tensors, targets, str(path), metadata, adapter), files=files)


def lora_of(
    tensors: Mapping[str, Any],
    targets: Mapping[str, Target],
    source: str,
    metadata: Mapping[str, str] | None = None,
    adapter: Mapping[str, Any] | None = None,
) -> LoRA:
    """The changes that tensors of a file mean.

    Args:
        tensors: whatever has a shape and a dtype and can be made an array, by the file's names.
        targets: of the model.
        source: what the file is called in messages.
        metadata: of the file's header.
        adapter: PEFT's configuration.

    Raises:
        LoRAError: another algorithm, by its name; changes of other shapes than the model's kernels; half of a pair; not
            one module of the model.
    """
    metadata = metadata or {}
    _refuse_others(tensors, source, metadata)
    modules: dict[str, dict[str, Any]] = {}
    unmatched = []
    for name, tensor in tensors.items():
        if found := _FACTOR.fullmatch(name):
            role = found["kohya"] or found["diffusers"] or found["alpha"] or _ROLES[found["peft"]]
            if role != "alpha" and not is_floating(tensor):
                raise LoRAError(f"{source}: {name} is {tensor.dtype}: convert it to float16, bfloat16 or float32")
            modules.setdefault(found["module"], {})[role] = tensor
        else:
            unmatched.append(name)
    deltas: dict[str, dict[str, Delta]] = {component: {} for component in COMPONENTS}
    alpha_of, wrong = _alphas(metadata, adapter, source), []
    for module, factors in modules.items():
        target = targets.get(module)
        if target is None:
            unmatched.append(module)
            continue
        if len(missing := {"down", "up"} - factors.keys()) > 0:
            raise LoRAError(f"{source}: {module} has no {missing.pop()} matrix: is it complete?")
        if target.path in deltas[target.component]:
            raise LoRAError(f"{source}: {module} is there twice, in two spellings")
        if misfit := _misfit(target, factors["down"], factors["up"]):
            wrong.append(f"{module} {misfit}")
            continue
        rank = factors["down"].shape[0]
        alpha = np.asarray(factors.get("alpha", 0)).astype(np.float64)
        if alpha.size != 1 or not np.isfinite(alpha).all():
            raise LoRAError(f"{source}: the alpha of {module} is {alpha.tolist()}, not a number")
        alpha = alpha.item() or alpha_of(target, rank)  # zeros stand for nothing, as in diffusers
        deltas[target.component][target.path] = Delta(target, factors["down"], factors["up"], alpha / rank)
    if wrong:
        more = f", and so on, {len(wrong)} in all" if len(wrong) > 1 else ""
        telling = max(wrong, key=lambda misfit: misfit.endswith("text)"))  # the first that names a model, if one does
        raise LoRAError(f"{source} is for another model: {telling}{more}{_made_for(metadata)}")
    if not any(deltas.values()):
        raise LoRAError(
            f"{source} changes no layer of this model; it names {_some(unmatched) or 'nothing'}{_made_for(metadata)}"
        )
    told = metadata.get(IN_HEADER)
    subject = None if told is None else Subject.from_text(told, source)
    return LoRA(Path(source).stem, deltas, tuple(unmatched), subject=subject)


def _refuse_others(tensors: Mapping[str, Any], source: str, metadata: Mapping[str, str]) -> None:
    for pattern, algorithm in _OTHERS:
        if keys := [name for name in tensors if re.search(pattern, name)]:
            raise LoRAError(
                f"{source} is {algorithm}, which is not supported, only LoRA is: {_some(keys)}{_made_for(metadata)}"
            )


def _alphas(
    metadata: Mapping[str, str], adapter: Mapping[str, Any] | None, source: str
) -> Callable[[Target, int], float]:
    """The alpha of a module that has none beside its factors: PEFT's of a configuration, else its rank."""
    prefixes = {component: (prefix, "") for component, prefix in PEFT_PREFIXES.items()}
    try:
        known = adapter or json.loads(metadata.get(_INSIDE) or "{}")
        patterns = {key: dict(value or {}) for key, value in known.items() if key.endswith("alpha_pattern")}
    except (ValueError, TypeError, AttributeError, RecursionError):
        raise LoRAError(f"{source}: its configuration of PEFT is damaged") from None

    def alpha_of(target: Target, rank: int) -> float:
        for prefix in prefixes[target.component]:
            own = patterns.get(f"{prefix}alpha_pattern", {})
            alpha = next((own[key] for key in own if f".{target.module}".endswith(f".{key}")), None)
            alpha = known.get(f"{prefix}lora_alpha") if alpha is None else alpha
            if isinstance(alpha, int | float):
                return float(alpha) * (math.sqrt(rank) if known.get(f"{prefix}use_rslora") else 1)
        return float(rank)

    return alpha_of


def _weight_shape(down: Any, up: Any) -> tuple[int, ...]:
    """The shape of what the factors make, as PyTorch stores it."""
    return (up.shape[0], *down.shape[1:])


def _misfit(target: Target, down: Any, up: Any) -> str | None:
    """What is wrong with the shapes of two factors, or None."""
    if min(len(down.shape), len(up.shape)) < 2 or up.shape[1] != down.shape[0] or math.prod(up.shape[2:]) != 1:
        return f"has factors of shapes {tuple(down.shape)} and {tuple(up.shape)}, which do not multiply"
    shape = _weight_shape(down, up)
    try:
        target.ours(np.broadcast_to(np.float32(0), shape))
    except ValueError:
        theirs = target.shape[::-1] if len(target.shape) == 2 else (*target.shape[:1:-1], *target.shape[:2])
        hint = f" ({shape[1]} is the width of {_WIDTHS[shape[1]]}'s text)" if _is_context(target, shape) else ""
        return f"changes a weight of {shape}, which is {theirs} here{hint}"
    return None


def _is_context(target: Target, shape: tuple[int, ...]) -> bool:
    return target.module.endswith((".attn2.to_k", ".attn2.to_v")) and shape[1] in _WIDTHS


def _made_for(metadata: Mapping[str, str]) -> str:
    """What kohya's header says of the file."""
    told = [metadata[key] for key in ("ss_base_model_version", "ss_network_module") if metadata.get(key)]
    return f"; its header says {', '.join(told)}" if told else ""


def _some(names: Sequence[str]) -> str:
    more = f" and {counted(len(names) - _SHOWN, 'other')}" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
