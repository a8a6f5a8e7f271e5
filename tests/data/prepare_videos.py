"""Small videos with known shots, for the tests of preparation; and what may go wrong with the work on one."""

import os
import time
from pathlib import Path

import numpy as np
from media.media_files import make_video
from PIL import Image

from gen1_jax.data.prepare import PreparedVideo, PrepareOptions, prepare_video

WIDTH, HEIGHT, RATE = 128, 72, 10
BUCKETS = ((32, 56), (40, 48), (40, 40), (48, 40), (56, 32))  # an eighth of the real ones
OPTIONS = PrepareOptions(frames=4, stride=2, buckets=BUCKETS)
"""Clips span 7 frames and begin 8 apart."""


def pan(count: int, seed: int = 0, width: int = WIDTH, height: int = HEIGHT, speed: int = 3) -> list[np.ndarray]:
    """A camera that moves over a landscape of its own colours, `speed` pixels a frame."""
    random = np.random.default_rng(seed)
    cells = random.integers(60, 196, 3) + random.integers(-60, 60, (4, 3 + (width + speed * count) // 36, 3))
    wide = Image.fromarray(cells.astype(np.uint8)).resize((width + speed * count, height), Image.Resampling.BICUBIC)
    return [np.asarray(wide)[:, speed * i : speed * i + width].copy() for i in range(count)]


def letterboxed(count: int, bar: int) -> list[np.ndarray]:
    frames = pan(count)
    for frame in frames:
        frame[:bar] = frame[HEIGHT - bar :] = 0
    return frames


def video(path: Path, frames: list[np.ndarray], **more) -> Path:
    return make_video(path, frames=frames, rate=RATE, options={"crf": "10"}, **more)


def footage(folder: Path) -> Path:
    """A folder with two good videos, and one of each kind that gives nothing."""
    (folder / "sub").mkdir(parents=True)
    video(folder / "b_two_shots.mp4", pan(20, seed=1) + pan(20, seed=2))
    video(folder / "sub" / "portrait.mkv", pan(17, seed=3, width=72, height=128))
    video(folder / "black.mp4", [np.zeros((HEIGHT, WIDTH, 3), np.uint8)] * 12)
    video(folder / "short.mp4", pan(5, seed=4))
    whole = video(folder / "truncated.mp4", pan(20, seed=5)).read_bytes()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) * 2 // 3])
    (folder / "text.mov").write_text("not a video")
    (folder / "notes.txt").write_text("not looked at")
    return folder


def fragile(path: Path, options: PrepareOptions) -> PreparedVideo:
    """`prepare_video`, unless the name of the file asks for something else."""
    if "crash" in path.name:
        os.abort()
    if "hang" in path.name:
        time.sleep(1000)
    if "slow" in path.name and (path.parent / "hold").exists():
        time.sleep(1000)
    with open(path.parent / "log", "a") as log:
        log.write(f"{path.name}\n")
    return prepare_video(path, options)
