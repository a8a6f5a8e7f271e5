"""How good an edit is: pure functions of pixels, depth, motion and embeddings. No files, no models.

| measure              | of                                              | range        | better |
|----------------------|-------------------------------------------------|--------------|--------|
| `psnr`               | pixels and the exact answer's                   | up to 100 dB | higher |
| `ssim`               | the same                                        | -1 to 1      | higher |
| `masked_psnr`        | the same, of some of the pixels                 | up to 100 dB | higher |
| `seam_error`         | pixels around a mask's border, and the answer's | from 0       | lower  |
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

Of real footage, beside the source of the edit:

| measure              | of                                              | range        | better |
|----------------------|-------------------------------------------------|--------------|--------|
| `warping_error`      | pixels and the source's estimated motion        | 0 to 1       | lower  |
| `motion_fidelity`    | estimated motion of the edit and of the source  | -1 to 1      | higher |
| `structure_error`    | estimated inverse depth of both                 | from 0       | lower  |
| `outside_error`      | pixels of both outside of a mask                | 0 to 1       | lower  |
| `colour_drift`       | mean colours of both over time                  | from 0       | lower  |
| `prompt_drift`       | CLIP's embeddings of frames and prompt          | any          | higher |
| `sharpness`          | pixels                                          | from 0       | (*)    |
| `frechet_distance`   | features of many edits and of many sources: FVD | from 0       | lower  |

(*) as the source's own: less is blur, more is noise. `frame_consistency` rises as pictures blur: never read it alone.

`bootstrap` tells how sure a mean of any of them over clips is, `proportion` and `sign_test` how sure a preference is.
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
from gen1_jax.measures.footage import (
    colour_drift,
    motion_fidelity,
    outside_error,
    prompt_drift,
    sharpness,
    visible,
    warping_error,
)
from gen1_jax.measures.frechet import frechet_distance
from gen1_jax.measures.intervals import Interval, bootstrap, proportion, sign_test
from gen1_jax.measures.local import masked_psnr, seam_error
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
    "colour_drift",
    "depth_change_error",
    "depth_errors",
    "edge_f1",
    "embedding_distance",
    "endpoint_error",
    "frame_consistency",
    "frechet_distance",
    "keypoint_distance",
    "masked_psnr",
    "motion_fidelity",
    "outside_error",
    "prompt_consistency",
    "prompt_drift",
    "proportion",
    "psnr",
    "region_consistency",
    "retrieval",
    "seam_error",
    "sharpness",
    "sign_test",
    "ssim",
    "standardise_inverse_depth",
    "structure_error",
    "unit_vectors",
    "visible",
    "warp",
    "warp_error",
    "warping_error",
]
