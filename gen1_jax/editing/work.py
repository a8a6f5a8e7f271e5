"""What of a long edit is done, in a hidden folder beside its output, so that an edit that was stopped goes on.

.mars.mp4.gen1/   key          of request, model and inputs: another edit begins anew
                  depth.f32    maps of the clip, see `editing.long_maps`
                  latents.f32  of the frames that are finished
                  band.npz     of those that are under way, see `editing.sweep`
"""

import contextlib
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from gen1_jax.diffusion.sweep import Band
from gen1_jax.editing.record import file_hash
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.sweep import SweepState
from gen1_jax.errors import UserError
from gen1_jax.files import replacing, write_text

_KEY, _LATENTS, _BAND = "key", "latents.f32", "band.npz"
_LONGEST_NAME = 255  # bytes


class Work:
    """The folder.

    Args:
        folder: that there is.
        frames: of the clip.
        size: (h, w, c) of its latents.

    Attributes:
        finished: frames whose latents are kept.
    """

    def __init__(self, folder: Path, frames: int, size: tuple[int, int, int]):
        self.folder, self.frames, self.size = folder, frames, size
        self.finished, self._state = self._read()

    @property
    def state(self) -> SweepState | None:
        """Where the sampling goes on, to be taken once; None where it begins."""
        state, self._state = self._state, None
        return state

    def keep(self, latents: Float[np.ndarray, "n h w c"], state: SweepState) -> None:
        """Adds finished frames, and where the sampling then stands."""
        with (self.folder / _LATENTS).open("ab") as file:
            np.ascontiguousarray(latents, np.float32).tofile(file)
            file.flush()
            os.fsync(file.fileno())
        self.finished += len(latents)
        band = {f"told.{kind}": maps for kind, maps in state.band.told.items()}
        band |= {name: getattr(state.band, name) for name in ("latents", "x0", "total")}
        place = np.array([state.rounds, state.entered, self.finished])
        arrays = {name: np.asarray(x, np.float32) for name, x in band.items()}  # bfloat16 is in no file of numpy's
        types = np.array([f"{name}={x.dtype}" for name, x in band.items()])
        with replacing(self.folder / _BAND, alone=True) as beside:
            np.savez(beside, place=place, types=types, **arrays)

    def latents(self, start: int, count: int) -> Float[np.ndarray, "n h w c"]:
        """Of finished frames."""
        each = int(np.prod(self.size))
        with (self.folder / _LATENTS).open("rb") as file:
            flat = np.fromfile(file, np.float32, count * each, offset=4 * start * each)
        return flat.reshape(-1, *self.size)

    def _read(self) -> tuple[int, SweepState | None]:
        path, latents = self.folder / _BAND, self.folder / _LATENTS
        if not path.exists():
            latents.unlink(missing_ok=True)
            return 0, None
        with np.load(path, allow_pickle=False) as arrays:
            types = dict(text.split("=") for text in arrays["types"].tolist())
            band = {name: jnp.asarray(arrays[name]).astype(kind) for name, kind in types.items()}
            rounds, entered, finished = map(int, arrays["place"])
        told = {name.removeprefix("told."): x for name, x in band.items() if name.startswith("told.")}
        os.truncate(latents, finished * 4 * int(np.prod(self.size)))  # what came after it was not told of
        return finished, SweepState(rounds, entered, Band(band["latents"], band["x0"], band["total"], told))


@contextlib.contextmanager
def work_of(request: EditRequest, record: Mapping[str, Any], frames: int, size: tuple[int, int, int]) -> Iterator[Work]:
    """What is done of an edit, and what will be; it goes when the block ends, or fails by what a person gave.

    Args:
        request: of the edit.
        record: of it, see `editing.record`.
        frames: of the clip.
        size: (h, w, c) of its latents.
    """
    folder, key = work_folder(request.output), _key(request, record)
    path = folder / _KEY
    if not (path.exists() and path.read_text(errors="replace") == key):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        write_text(path, key)
    work = Work(folder, frames, size)
    try:
        yield work
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except BaseException:
        warnings.warn(
            f"{request.output}: {work.finished} of {frames} frames are sampled; the same command goes on from there"
            f" ({folder.name} beside it keeps them)",
            stacklevel=2,
        )
        raise
    shutil.rmtree(folder, ignore_errors=True)


def work_folder(output: str | Path) -> Path:
    """Where what is done of an edit lies: .mars.mp4.gen1 beside mars.mp4."""
    path = Path(output)
    name = f".{path.name}.gen1"
    if len(os.fsencode(name)) > _LONGEST_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:16]}.gen1"
    return path.with_name(name)


def _key(request: EditRequest, record: Mapping[str, Any]) -> str:
    """Of all that an edit depends on: what was asked for, the model, and the bytes of its inputs."""
    inputs = [*request.inputs, *(path for path, _ in request.loras)]
    files = [file for path in map(Path, inputs) for file in (sorted(path.iterdir()) if path.is_dir() else [path])]
    hashes = [[file.name, file_hash(file)] for file in files if file.is_file()]
    return hashlib.sha256(json.dumps([dict(record), hashes]).encode()).hexdigest() + "\n"
