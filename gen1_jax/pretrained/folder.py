"""A model folder: config.json, one safetensors file (or several shards) a network, tokenizer.json. Nothing is pickled.

config.json  tokenizer.json  unet.safetensors  vae.safetensors  clip.safetensors  depth.safetensors  prior.safetensors

A further network (`parts.PARTS`) is a further file. Kernels may be of eight bits, see `pretrained.eight_bit`. Where
config.json says `"base": {"vae": "nano"}`, that network has no file and is that model's, which ships with this package.
"""

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping, Set
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from safetensors import SafetensorError

from gen1_jax.errors import UserError
from gen1_jax.files import replacing
from gen1_jax.models.module import Params, abstract_parameters, flatten, initial_values, unflatten
from gen1_jax.pretrained.eight_bit import QUANTIZATION, StoredKernel, is_scale, packed, unpacked
from gen1_jax.pretrained.family import NANO, Gen1Config
from gen1_jax.pretrained.layout import refuse
from gen1_jax.pretrained.nano_public import NANO_PUBLIC, NanoPublic
from gen1_jax.pretrained.sizes import SIZES
from gen1_jax.pretrained.subject import SUBJECT, Subjects, read_subject
from gen1_jax.pretrained.tensors import (
    FolderError,
    StoredTensor,
    is_floating,
    one_line,
    pickles_in,
    read_json,
    read_text,
    save_tensors,
    stored_tensors,
)
from gen1_jax.pretrained.tokenizer import CLIPTokenizer, clip_vocabulary
from gen1_jax.pretrained.words import READS_WORDS, read_words

FORMAT = "gen1_jax"
VERSION = 1
_TOKENIZER = "tokenizer.json"
_OF_EDITS = ("sampler", "num_inference_steps", "guidance_scale", "guidance_interval", "distilled_scales")
_OF_UNET = ("learned_content", "schedule", *_OF_EDITS)
_BASE = "base"  # in config.json
_NANO = Path(__file__).parent / "nano"
BASES = {"nano": _NANO}
"""Models that ship, by the names that config.json of other folders may give."""

_BESIDE_NANO = {"nano-fast": "nano_fast", "nano2": "nano2", "nano-upscaler": "nano_upscaler"}
SHIPPED = BASES | {name: _NANO.parent / folder for name, folder in _BESIDE_NANO.items()}
"""All models that ship, by their names."""


@runtime_checkable
class ModelSource(Protocol):
    """Where a pipeline gets its configuration, weights and tokenizer from.

    Attributes:
        config: the family's configuration.
        name: what to call the model in messages.
        warning: one line that every user of the model should see, or None.
    """

    config: Gen1Config
    name: str
    warning: str | None

    def parameters(self, component: str) -> Params:
        """The weights of one network, on the host."""
        ...

    def stored(self, component: str) -> Params:
        """The same, each read only where it is sliced: so that what is divided over hosts is whole on none."""
        ...

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text tower."""
        ...


class ModelFolder:
    """A model folder on disk, checked as a whole before anything is computed.

    Args:
        path: of the folder.
        name: what to call the model in messages; that of the folder if it has no other.

    Raises:
        FolderError: no such folder, not a model folder, a pickle instead of safetensors, a damaged file.
        LayoutError: tensors that are missing, too many or of another shape than the configuration says.

    Attributes:
        is_quantized: whether kernels are of eight bits.
    """

    warning = None
    words: Set[str] | None
    """That its captions had, see `pretrained.words`; None if it does not say."""

    def __init__(self, path: str | Path, name: str | None = None):
        self.path = Path(path)
        self.name = name or self.path.resolve().name
        self.config, self.is_quantized, base = _read_config(self.path)
        shipped = {name: ModelFolder(BASES[name]) for name in set(base.values())}
        self._base = {component: shipped[name] for component, name in base.items()}
        self.words = read_words(self.path)
        for component in self.config.components:
            self._check(component)
        self.tokenizer()

    def parameters(self, component: str) -> Params:
        """The weights of one network as they are stored; kernels of eight bits widened to float32."""
        return jax.tree.map(np.asarray, self.stored(component))

    def stored(self, component: str) -> Params:
        """The same as `StoredTensor`s, or `StoredKernel`s of eight bits."""
        return unflatten(self._tensors(component))

    @property
    def subjects(self) -> Subjects:
        """That of a model which `gen1 customize --full` made; see `pretrained.subject`."""
        file = self.path / SUBJECT
        return [(read_subject(file), 1.0)] if file.is_file() else []

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text tower."""
        return _tokenizer(self.path, self.config)

    def _tensors(self, component: str) -> dict[str, StoredTensor | StoredKernel]:
        if component in self._base:
            return self._base[component]._tensors(component)
        files = sorted(self.path.glob(f"{component}.safetensors")) or sorted(
            self.path.glob(f"{component}-*.safetensors")
        )
        if files:
            tensors = stored_tensors(files)
            return unpacked(tensors, f"{self.path / component}.safetensors") if self.is_quantized else tensors
        if refused := pickles_in(self.path, component):
            raise FolderError(f"{refused[0]} is a pickle, which could run any code when opened: import it anew")
        raise FolderError(f"{self.path} has no {component}.safetensors")

    def _check(self, component: str) -> None:
        """Compare the headers of the files with the shapes that the configuration asks for."""
        found = self._tensors(component)
        expected = flatten(abstract_parameters(self.config.build(component, np.float32)))
        both = [(name, found[name], leaf) for name, leaf in expected.items() if name in found]
        refuse(
            f"{self.path / component}.safetensors",
            {
                "lacks tensors": sorted(expected.keys() - found.keys()),
                "has tensors that the network does not": sorted(found.keys() - expected.keys()),
                "has tensors of another shape": [
                    f"{n} is {x.shape}, not {y.shape}" for n, x, y in both if x.shape != y.shape
                ],
                "has tensors that are not floating point": [
                    f"{n} is {x.dtype}" for n, x, _ in both if not is_floating(x)
                ],
            },
        )


class SeededModel:
    """A model of freshly initialised weights: it runs everything and has learned nothing.

    Args:
        config: the family's configuration.
        seed: of the weights.
        name: what to call it.
        tokenizer_folder: whose tokenizer.json it reads; None for CLIP's vocabulary.
    """

    def __init__(self, config: Gen1Config, seed: int, name: str, tokenizer_folder: Path | None = None):
        self.config, self.name = config, name
        self.warning = (
            f"{name} has no trained weights yet: its networks are initialised from seed {seed}, edits are noise"
        )
        self._seed, self._tokenizer_folder = seed, tokenizer_folder

    def parameters(self, component: str) -> Params:
        """Fresh weights of one network."""
        return jax.tree.map(np.asarray, self.stored(component))

    def stored(self, component: str) -> Params:
        """The same as `InitialValue`s."""
        return initial_values(self.config.build(component, np.float32), self._seed)

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text tower."""
        if self._tokenizer_folder is None:
            return CLIPTokenizer(clip_vocabulary(), self.config.text_config, "CLIP's vocabulary")
        return _tokenizer(self._tokenizer_folder, self.config)


class AssembledModel:
    """Networks of several models as one.

    Args:
        base: gives all that no part gives.
        parts: models by the network that is taken from each, its configuration with it; with the U-Net its noise
            schedule, and what edits with it need.

    Raises:
        ValueError: a network that the base does not have, or networks that do not fit each other.
    """

    def __init__(self, base: ModelSource, parts: Mapping[str, ModelSource]):
        if unknown := sorted(parts.keys() - set(base.config.components)):
            raise UserError(f"{base.name} has no network {unknown[0]!r}, only {', '.join(base.config.components)}")
        self.base, self.parts, self.name = base, dict(parts), base.name
        networks = {component: getattr(source.config, component) for component, source in parts.items()}
        theirs, ours = parts.get("unet", base).config, base.config
        networks |= {name: getattr(theirs, name) for name in _OF_UNET}
        self.config = dataclasses.replace(ours, **networks)
        self.warning = base.warning if set(base.config.components) - parts.keys() else None
        readers = [parts.get(name, base) for name in READS_WORDS if name in self.config.components]
        known = [getattr(reader, "words", None) for reader in readers]
        self.words = known[0] if all(words == known[0] for words in known) else None

    def parameters(self, component: str) -> Params:
        """The weights of one network."""
        return self.parts.get(component, self.base).parameters(component)

    def stored(self, component: str) -> Params:
        """The same, read where they are sliced."""
        return self.parts.get(component, self.base).stored(component)

    def tokenizer(self) -> CLIPTokenizer:
        """The tokenizer of the text tower."""
        reads = (self.parts[name] for name in ("text", "clip") if name in self.parts)
        return next(reads, self.base).tokenizer()


def is_named(name: str) -> bool:
    """Whether a model has this name, wherever it is asked for."""
    return name in SIZES or name in SHIPPED or name == NANO_PUBLIC


def open_model(name_or_folder: str | Path) -> ModelSource:
    """The one in a folder, one of those that ship (`SHIPPED`), or one without weights: of the other sizes of
    `SIZES`, or "nano-public", nano's networks around a U-Net without.

    Raises:
        FolderError, LayoutError: see `ModelFolder`.
    """
    if (shipped := SHIPPED.get(str(name_or_folder))) is not None:
        return ModelFolder(shipped, str(name_or_folder))
    if str(name_or_folder) == NANO_PUBLIC:
        return NanoPublic(ModelFolder(_NANO))
    if (config := SIZES.get(str(name_or_folder))) is not None:
        has_nano_words = config.text_config.vocab_size == NANO.text_config.vocab_size
        return SeededModel(config, 0, str(name_or_folder), _NANO if has_nano_words else None)
    if not Path(name_or_folder).is_dir():
        known = ", ".join(SHIPPED)
        raise FolderError(f"{name_or_folder} is neither a model folder nor the name of a model that ships ({known})")
    return ModelFolder(name_or_folder)


def save_model(
    folder: str | Path,
    config: Gen1Config,
    params: Mapping[str, Any],
    tokenizer_json: str,
    *,
    shard_bytes: int | None = None,
) -> None:
    """Write a model folder beside its place and rename it there, so that it is never half a model.

    Args:
        folder: must not exist yet.
        config: the family's configuration.
        params: the parameters of each of `config.components`, some of which may be `Quantized`. The mapping is asked
            once a network, so that a lazy one holds a single network at a time.
        tokenizer_json: contents of tokenizer.json.
        shard_bytes: start another file of a network beyond this size.

    Raises:
        FolderError: the folder exists or cannot be written.
    """
    with new_folder(Path(folder)) as partial:
        write_model(partial, config, params, tokenizer_json, shard_bytes)


def write_model(
    folder: Path,
    config: Gen1Config,
    params: Mapping[str, Any],
    tokenizer_json: str,
    shard_bytes: int | None,
    base: str | None = None,
) -> None:
    """The files of a model into a folder that is there. See `save_model`.

    With a base, one of `BASES`, networks that `params` does not have are those of that model.
    """
    is_quantized = False
    others = {} if base is None else dict.fromkeys(sorted({*config.components} - {*params}), base)
    for component in config.components:
        if component in others:
            continue
        held = save_tensors(
            folder, component, packed(flatten(params[component])), layout=FORMAT, shard_bytes=shard_bytes
        )
        is_quantized |= any(map(is_scale, held))
    quantization = {"quantization": QUANTIZATION} if is_quantized else {}
    whose = {_BASE: others} if others else {}
    text = json.dumps({"format": FORMAT, "version": VERSION, **whose, **quantization, **config.to_dict()}, indent=2)
    (folder / "config.json").write_text(text + "\n", encoding="utf-8")
    (folder / _TOKENIZER).write_text(tokenizer_json, encoding="utf-8")


@contextlib.contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A folder to fill that takes its name when all went well and disappears otherwise.

    Raises:
        FolderError: the folder exists or cannot be written.
    """
    made = []
    try:
        made = [parent for parent in folder.parents if not parent.exists()]
        folder.parent.mkdir(parents=True, exist_ok=True)
        if folder.exists():  # or its name is too long, which the system says only where its parent is
            raise FolderError(f"{folder} exists already: choose another name")
        with replacing(folder) as partial:
            partial.mkdir()
            yield partial
    except BaseException as error:
        for parent in made:  # the innermost first
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError | SafetensorError):
            reason = getattr(error, "strerror", None) or one_line(error)
            raise FolderError(f"{folder} cannot be written: {reason}") from None
        raise


def _tokenizer(folder: Path, config: Gen1Config) -> CLIPTokenizer:
    return CLIPTokenizer(read_text(folder / _TOKENIZER), config.text_config, str(folder / _TOKENIZER))


def _read_config(folder: Path) -> tuple[Gen1Config, bool, dict[str, str]]:
    """The configuration of a folder, whether its kernels are of eight bits, and which networks are of which base."""
    values = read_json(folder / "config.json")
    if values.pop("format", None) != FORMAT:
        raise FolderError(f"{folder}/config.json is not of a gen1_jax model: make one with gen1 import")
    if (version := values.pop("version", None)) != VERSION:
        raise FolderError(f"{folder} has format version {version}, this program reads {VERSION}")
    if (quantization := values.pop("quantization", None)) not in (None, QUANTIZATION):
        raise FolderError(f"{folder}/config.json: quantization is {quantization!r}, this program reads {QUANTIZATION}")
    base = values.pop(_BASE, {})
    if not isinstance(base, dict) or any(name not in list(BASES) for name in base.values()):
        known = ", ".join(BASES)
        raise FolderError(f"{folder}/config.json: base is {base!r}, not networks of models that ship ({known})")
    try:
        return Gen1Config.from_dict(values), quantization is not None, base
    except ValueError as error:
        raise FolderError(f"{folder}/config.json: {error}") from None
