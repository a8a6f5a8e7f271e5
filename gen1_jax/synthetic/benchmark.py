"""Frames a second of the renderer on this machine: `python -m gen1_jax.synthetic.benchmark --help`."""

import argparse
import dataclasses
import os
import time
from concurrent.futures import ThreadPoolExecutor

import jax
import numpy as np

from gen1_jax.synthetic.content import clip_seed, sample_content
from gen1_jax.synthetic.renderer import Clip, render
from gen1_jax.synthetic.sampling import sample_structure


@dataclasses.dataclass(frozen=True, kw_only=True)
class Throughput:
    """What `measure_throughput` found."""

    frames_per_second: float
    compile_seconds: float
    frames: int
    seconds: float


def measure_throughput(
    *, clips: int = 16, frames: int = 8, size: int = 128, supersample: int = 2, batch: int = 1, threads: int = 1
) -> Throughput:
    """Renders `clips` different clips, complete (rgb, depth, ids, flow), and times all but compilation.

    Args:
      batch: clips in one call, by vmap; large on a GPU, 1 on a CPU.
      threads: calls in flight. A call uses one core of a CPU for most of its time, so one thread a core is best.
    """
    inputs = []
    for start in range(0, clips, batch):
        structures = [sample_structure(clip_seed("train", start + i)) for i in range(batch)]
        contents = [sample_content(start + i, s, "train") for i, s in enumerate(structures)]
        inputs.append(tuple(jax.tree.map(lambda *leaves: np.stack(leaves), *group) for group in (structures, contents)))
    if batch == 1:
        inputs = [jax.tree.map(lambda leaf: leaf[0], pair) for pair in inputs]

    def one(structure, content) -> Clip:
        return render(structure, content, frames=frames, size=size, supersample=supersample)

    call = one if batch == 1 else jax.jit(jax.vmap(one))
    begin = time.perf_counter()
    jax.block_until_ready(call(*inputs[0]))
    compiled = time.perf_counter()
    with ThreadPoolExecutor(threads) as pool:
        for clip in pool.map(lambda pair: jax.block_until_ready(call(*pair)), inputs):
            del clip
    seconds = time.perf_counter() - compiled
    total = len(inputs) * batch * frames
    return Throughput(
        frames_per_second=total / seconds, compile_seconds=compiled - begin, frames=total, seconds=seconds
    )


def main() -> None:
    """Parses the command line and prints one line."""
    on_cpu = jax.default_backend() == "cpu"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clips", type=int, default=16 if on_cpu else 128)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--supersample", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1 if on_cpu else 16)
    parser.add_argument("--threads", type=int, default=(os.cpu_count() or 1) if on_cpu else 1)
    options = vars(parser.parse_args())
    result = measure_throughput(**options)
    print(
        f"{result.frames_per_second:.1f} frames/s on {jax.devices()[0].device_kind} ({result.frames} frames in "
        f"{result.seconds:.2f} s; compiled in {result.compile_seconds:.1f} s; {options})"
    )


if __name__ == "__main__":
    main()
