"""Stable Diffusion 1.x's text encoder in transformers' layout: CLIPTextModel, or the text tower of a larger CLIP model.

Its configuration is read by `hf_clip.clip_text_config`.
"""

import dataclasses

from gen1_jax.pretrained.hf_clip import CLIP

TEXT_ENCODER = dataclasses.replace(
    CLIP,
    renames=((r"^", "text."), *CLIP.renames),
    aliases=((r"^(?=(embeddings|encoder|final_layer_norm)\.)", "text_model."),),
    ignored=(r"\bposition_ids$", r"\btext_projection\.", r"^(vision_model|visual_projection)\.", r"^logit_scale$"),
)
"""With the prefix `text_model.` or, as transformers 5.6 and later have it, without.

The projection that a text encoder may have is left out, and so is all that a CLIPModel has beside its text tower.
"""
