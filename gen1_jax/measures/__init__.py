"""How good an edit is: pure functions of pixels, depth, motion and embeddings. No files, no models.

| measure              | of                                              | range        | better |
|----------------------|-------------------------------------------------|--------------|--------|
| `psnr`               | pixels and the exact answer's                   | up to 100 dB | higher |
| `ssim`               | the same                                        | -1 to 1      | higher |
| `embedding_distance` | CLIP's embeddings of both, frame by frame       | 0 to 2       | lower  |
| `structure_error`    | estimated and true inverse depth of a clip      | from 0       | lower  |
| `depth_change_error` | the same and the true motion: what flickers      | from 0       | lower  |
| `depth_errors`       | the same of a picture: AbsRel, share within 25% | from 0; 0..1 | lower; higher |
| `edge_f1`            | edges and the true ones, within a pixel         | 0 to 1       | higher |
| `angular_error`      | normals and the true ones                       | 0 to 180°    | lower  |
| `endpoint_error`     | motion and the true one                         | from 0 px    | lower  |
| `region_consistency` | regions of a clip and the true ones             | 0 to 1       | higher |
| `keypoint_distance`  | joints and the true ones                        | from 0       | lower  |
| `warp_error`         | pixels and the true motion                      | 0 to 1       | lower  |
| `frame_consistency`  | CLIP's embeddings of consecutive frames         | -1 to 1      | higher |
| `prompt_consistency` | CLIP's embeddings of frames and prompt          | -1 to 1      | higher |
| `retrieval`          | embeddings of many edits and of their prompts   | 0 or 1       | higher |

`bootstrap` tells how sure a mean of any of them over clips is.
"""

from gen1_jax.measures.depth import (
    align_inverse_depth,
    depth_change_error,
    depth_errors,
    standardise_inverse_depth,
    structure_error,
)
from gen1_jax.measures.embeddings import (
    embedding_distance,
    frame_consistency,
    prompt_consistency,
    retrieval,
    unit_vectors,
)
from gen1_jax.measures.intervals import Interval, bootstrap
from gen1_jax.measures.motion import warp, warp_error
from gen1_jax.measures.pixels import psnr, ssim
from gen1_jax.measures.structures import (
    angular_error,
    edge_f1,
    endpoint_error,
    keypoint_distance,
    region_consistency,
)

__all__ = [
    "Interval",
    "align_inverse_depth",
    "angular_error",
    "bootstrap",
    "depth_change_error",
    "depth_errors",
    "edge_f1",
    "embedding_distance",
    "endpoint_error",
    "frame_consistency",
    "keypoint_distance",
    "prompt_consistency",
    "psnr",
    "region_consistency",
    "retrieval",
    "ssim",
    "standardise_inverse_depth",
    "structure_error",
    "unit_vectors",
    "warp",
    "warp_error",
]
