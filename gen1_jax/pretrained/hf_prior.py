"""diffusers' PriorTransformer (the prior of kakaobrain/karlo-v1-alpha): its configuration and its tensors' names.

Its text states are as wide as its embeddings. Ours may be narrower: such a prior is written with zero weights for the
states' missing features, and its configuration tells how many there are by a key that diffusers passes over.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from gen1_jax.models.module import Params
from gen1_jax.models.prior import PriorConfig
from gen1_jax.pretrained.hf_config import ConfigError, require, typed_fields
from gen1_jax.pretrained.layout import Layout

_SOURCE, _TEXT_WIDTH = "prior config", "_text_hidden_size"

PRIOR = Layout(
    renames=(
        (r"^layers\.", "transformer_blocks."),
        (r"\.attention\.to_out\.", ".attn1.to_out.0."),
        (r"\.attention\.", ".attn1."),
        (r"\.norm2\.", ".norm3."),  # there, the second is that of a cross-attention
        (r"\.fc1\.", ".ff.net.0.proj."),
        (r"\.fc2\.", ".ff.net.2."),
    ),
    ignored=(r"^causal_attention_mask$",),
    zero_inputs=(r"^encoder_hidden_states_proj\.kernel$",),
)


def prior_config(config: Mapping) -> PriorConfig:
    """The `PriorConfig` of a PriorTransformer's config.json; absent keys have diffusers' defaults, which are Karlo's.

    Raises:
        ConfigError: a variant that we do not implement, or a value of the wrong type, by key.
    """
    ours = PriorConfig(**typed_fields(PriorConfig(), config, _SOURCE))
    ours = dataclasses.replace(ours, text_hidden_size=_text_hidden_size(config, ours.embedding_dim))
    # Widths are null where they follow from the others.
    config = {key: value for key, value in config.items() if value is not None or not key.endswith("_dim")}
    require(
        config,
        _SOURCE,
        _class_name="PriorTransformer",
        additional_embeddings=4,
        time_embed_act_fn="silu",
        norm_in_type=None,
        embedding_proj_norm_type=None,
        encoder_hid_proj_type="linear",
        added_emb_type="prd",
        time_embed_dim=ours.width,
        embedding_proj_dim=ours.embedding_dim,
        clip_embed_dim=ours.embedding_dim,
    )
    return ours


def their_prior_config(config: PriorConfig) -> dict[str, Any]:
    """The config.json of a PriorTransformer, the inverse of `prior_config`.

    Raises:
        ConfigError: the states of text tokens are wider than the embeddings.
    """
    if config.text_hidden_size > config.embedding_dim:
        raise ConfigError(
            f"the prior reads text states of width {config.text_hidden_size}, but diffusers' PriorTransformer has none "
            f"wider than its embeddings, {config.embedding_dim}"
        )
    values = dataclasses.asdict(config)
    return {"_class_name": "PriorTransformer", _TEXT_WIDTH: values.pop("text_hidden_size"), **values}


def prior_tensors(config: PriorConfig, params: Params) -> dict[str, np.ndarray]:
    """The tensors of a PriorTransformer; see the module for those that are wider than ours."""
    tensors, name = PRIOR.to_theirs(params), "encoder_hidden_states_proj.weight"
    missing = config.embedding_dim - config.text_hidden_size
    return tensors | {name: np.pad(tensors[name], ((0, 0), (0, missing)))}


def their_prior_scheduler_config() -> dict[str, Any]:
    """The scheduler_config.json of the UnCLIPScheduler that steps as `PriorTransformer.sample`, which is Karlo's."""
    return {
        "_class_name": "UnCLIPScheduler",
        "num_train_timesteps": 1000,
        "variance_type": "fixed_small_log",
        "clip_sample": True,
        "clip_sample_range": 10.0,
        "prediction_type": "sample",
    }


def _text_hidden_size(config: Mapping, embedding_dim: int) -> int:
    width = config.get(_TEXT_WIDTH, embedding_dim)
    if type(width) is not int or not 1 <= width <= embedding_dim:
        raise ConfigError(f"{_SOURCE}: {_TEXT_WIDTH} is {width!r}, not in 1 ... embedding_dim, {embedding_dim}")
    return width
