"""How loud the sound of a file is, frame by frame."""

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
from jaxtyping import Float

from gen1_jax.media.audio import default_track
from gen1_jax.media.container import open_container, origin
from gen1_jax.media.errors import AnyPath, blaming
from gen1_jax.media.files import existing_path
from gen1_jax.media.pictures import is_picture


def loudness(path: AnyPath, times: Sequence[Fraction], end: Fraction) -> Float[np.ndarray, " t"] | None:
    """Root of the mean square of the sound while each frame is shown, as a part of that of the loudest frame.

    Args:
        path: of the file.
        times: of the frames, seconds as `Frame.time`, ascending.
        end: of the last of them.

    Returns:
        (T,) from 0 to 1, all 0 of silence; None if there is no sound.

    Raises:
        MediaError: the file cannot be read.
    """
    local = existing_path(path)
    if local.is_dir() or is_picture(path, local):
        return None
    bounds = np.array([float(time) for time in (*times, end)])
    energy, counts = np.zeros(len(times)), np.zeros(len(times))
    zero = float(origin(path, local))
    with open_container(path, local) as container, blaming(path, "its sound cannot be read"):
        if not container.streams.audio or (stream := default_track(container.streams.audio)).codec_context is None:
            return None
        mono = av.AudioResampler(format="flt", layout="mono")
        for heard in container.decode(stream):
            if heard.pts is None:
                continue
            begins = float(heard.pts * heard.time_base) - zero
            if begins >= bounds[-1]:
                break
            samples = np.concatenate([piece.to_ndarray()[0] for piece in mono.resample(heard)] or [np.zeros(0)])
            frame = np.searchsorted(bounds, begins + np.arange(len(samples)) / heard.sample_rate, side="right") - 1
            inside = (frame >= 0) & (frame < len(times))
            energy += np.bincount(frame[inside], samples[inside].astype(np.float64) ** 2, len(times))
            counts += np.bincount(frame[inside], minlength=len(times))
    level = np.sqrt(energy / np.maximum(counts, 1))
    return (level / max(level.max(), 1e-9)).astype(np.float32)
