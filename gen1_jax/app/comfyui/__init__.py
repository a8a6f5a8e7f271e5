"""Nodes for ComfyUI. It imports this package by the folder that `gen1 comfyui` writes; README.md tells what they do.

Nothing here imports ComfyUI or torch at once: images and masks are tensors that ComfyUI hands in, and results are made
by them.
"""

import os

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the GPU's memory is ComfyUI's, too

from gen1_jax.app.comfyui.nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]
