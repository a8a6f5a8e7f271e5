"""Procedural videos whose structure (geometry, motion, camera) and content (materials, place, light, style) are
separate programs: the perfect answer to an edit is the same structure with another content.

    structure = sample_structure(seed)
    content = sample_content(seed, structure, "train")
    clip = render(structure, content, frames=8, size=128)     # Clip(rgb, depth, ids, flow)
    parse(caption(content, structure)) == describe(structure, content)
"""

from gen1_jax.synthetic.captions import Description, caption, describe, parse
from gen1_jax.synthetic.content import SPLITS, Content, clip_seed, make_content, sample_content, split_of
from gen1_jax.synthetic.distance import FAR
from gen1_jax.synthetic.environments import ENVIRONMENT_NAMES, LIGHTS
from gen1_jax.synthetic.maps import EXACT, exact_maps, render_with_maps
from gen1_jax.synthetic.materials import MATERIAL_NAMES
from gen1_jax.synthetic.pairs import CHANGES, sample_source
from gen1_jax.synthetic.renderer import Clip, Geometry, flow_to, render, shade_clip, trace_clip
from gen1_jax.synthetic.sampling import sample_structure
from gen1_jax.synthetic.shapes import SHAPE_NAMES
from gen1_jax.synthetic.sheet import contact_sheet
from gen1_jax.synthetic.skeletons import SKELETONS
from gen1_jax.synthetic.structure import CAMERAS, LAYOUTS, MAX_OBJECTS, Structure
from gen1_jax.synthetic.styles import STYLES

__all__ = [
    "CAMERAS",
    "CHANGES",
    "ENVIRONMENT_NAMES",
    "EXACT",
    "FAR",
    "LAYOUTS",
    "LIGHTS",
    "MATERIAL_NAMES",
    "MAX_OBJECTS",
    "SHAPE_NAMES",
    "SKELETONS",
    "SPLITS",
    "STYLES",
    "Clip",
    "Content",
    "Description",
    "Geometry",
    "Structure",
    "caption",
    "clip_seed",
    "contact_sheet",
    "describe",
    "exact_maps",
    "flow_to",
    "make_content",
    "parse",
    "render",
    "render_with_maps",
    "sample_content",
    "sample_source",
    "sample_structure",
    "shade_clip",
    "split_of",
    "trace_clip",
]
