"""diffusers' PriorTransformer (the prior of kakaobrain/karlo-v1-alpha): its configuration and its tensors' names."""

import dataclasses
from collections.abc import Mapping

from gen1_jax.models.prior import PriorConfig
from gen1_jax.pretrained.hf_config import require, typed_fields
from gen1_jax.pretrained.layout import Layout

_SOURCE = "prior config"

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
)


def prior_config(config: Mapping) -> PriorConfig:
    """The `PriorConfig` of a PriorTransformer's config.json; absent keys have diffusers' defaults, which are Karlo's.

    Raises:
        ConfigError: a variant that we do not implement, or a value of the wrong type, by key.
    """
    ours = PriorConfig(**typed_fields(PriorConfig(), config, _SOURCE))
    ours = dataclasses.replace(ours, text_hidden_size=ours.embedding_dim)
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
