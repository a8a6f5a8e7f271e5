"""Real processes of `gen1 train` on the smallest model and data, each forked from a server that has imported all."""

import dataclasses
import gc
import json
import multiprocessing
import os
import resource
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import orbax.checkpoint as ocp
from tiny import TINY, save_tiny_model

from gen1_jax.data.latents import structure_contract, write_latents
from gen1_jax.data.precompute import encoder_fingerprints
from gen1_jax.models.structure import structure_kind
from gen1_jax.pretrained.folder import ModelFolder

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["gen1_jax.training.loop", "gen1_jax.commands.train"])

STEPS = 3  # of each of the two stages

RECIPE = """
from ml_collections import ConfigDict

def get_config():
    config = ConfigDict()
    config.component, config.model, config.from_scratch = "{component}", "{model}", True
    sources = ({{"path": "{latents}"}},)
    stream = dict(sources=sources, buckets=((16, 16),), batch_size=8)
    config.data = ConfigDict(dict(image=stream, video=stream | dict(frames=2), inputs="latents"))
    config.stages = (
        dict(name="first", steps={steps}, image_probability=0.0),
        dict(name="second", steps={steps}, image_probability=0.5, structure_levels=(0, 7)),
    )
    config.optimizer = ConfigDict(dict(learning_rate=1e-3, warmup_steps=2, epsilon=1e-2))  # see assert_close
    config.mesh = ConfigDict(dict(data=-1, fsdp=1))
    config.checkpoint = ConfigDict(dict(every=1, keep=20))
    config.dtype, config.log_every, config.max_skipped = "float32", 1, 20
    return config
"""


def save_wide_model(folder: Path) -> Path:
    """The smallest model with a prior whose arrays are large enough to be divided among devices."""
    prior = dataclasses.replace(TINY.prior, attention_head_dim=64)
    return save_tiny_model(folder, dataclasses.replace(TINY, prior=prior))


def make_latents(
    directory: Path, model: Path, clips: int = 16, frames: int = 3, kinds: tuple[str, ...] = ("depth",)
) -> Path:
    """A data set like one of `gen1 precompute` with this model, of random numbers."""
    rng = np.random.default_rng(0)
    normal = lambda *shape: rng.normal(size=shape).astype(ml_dtypes.bfloat16)
    sizes = dict(frame_rate=8.0, source="noise", frames=frames, height=16, width=16)

    def examples(shard: int):
        for i in range(clips):
            latents = dict(moments=normal(frames, 8, 8, 8), structure={k: normal(8, frames, 8, 8, 4) for k in kinds})
            yield dict(id=f"c{i}", caption=f"clip {i}", content=normal(frames, 16), **latents, **sizes)

    info = {"model": encoder_fingerprints(ModelFolder(model))}
    of_records = {k: structure_contract(structure_kind(k), "record") for k in kinds}
    structure = of_records | {"depth": structure_contract(structure_kind("depth"))}
    write_latents(directory, split="train", num_shards=1, examples=examples, structure=structure, info=info)
    return directory


@dataclasses.dataclass
class Run:
    """A process of `gen1 train`, and what it has written."""

    process: multiprocessing.Process
    output: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def wait(self, timeout: float = 120) -> int:
        """The exit code; negative for a signal."""
        self.process.join(timeout)
        if self.process.exitcode is None:
            self.process.kill()
            raise AssertionError(f"still running after {timeout} s:\n{self.text}")
        return self.process.exitcode

    @property
    def text(self) -> str:
        """What it said, with the few words that JAX and gloo cannot help."""
        return self.output.read_text()

    @property
    def said(self) -> list[str]:
        """The lines of the program itself on stderr."""
        return [line for line in self.text.splitlines() if line.startswith("gen1: ")]

    @property
    def errors(self) -> list[str]:
        """Those that are no warnings, as JAX gives when its cache cannot be written."""
        return [line for line in self.said if not line.startswith("gen1: warning: ")]

    def until(self, happened: Callable[[], bool], timeout: float = 60) -> bool:
        """Waits for it; whether it happened before the process ended."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if happened():
                return True
            if self.process.exitcode is not None:
                return False
            time.sleep(0.002)
        raise AssertionError(f"nothing happened in {timeout} s:\n{self.text}")


@dataclasses.dataclass(frozen=True)
class Trainer:
    """Starts processes that train by one recipe file."""

    recipe: Path
    outputs: Path

    def start(self, workdir: Path, *arguments: str, devices: int = 1, largest_file: int | None = None) -> Run:
        """A process on that many devices that can write no file larger than `largest_file` bytes."""
        output = self.outputs / f"{time.monotonic_ns()}.txt"
        output.touch()
        command = ["train", "--config", str(self.recipe), "--workdir", str(workdir), *arguments]
        settings = (devices, largest_file, jax.config.jax_compilation_cache_dir)
        process = _context.Process(target=_train, args=(command, str(output), *settings), daemon=True)
        process.start()
        return Run(process, output)

    def start_two(self, workdir: Path, *arguments: str) -> list[Run]:
        """Two processes of one run, joined by gloo."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"localhost:{free.getsockname()[1]}"
        joined = ("--coordinator-address", address, "--num-processes", "2", "--process-id")
        return [self.start(workdir, *arguments, *joined, str(index)) for index in range(2)]

    def run(self, workdir: Path, *arguments: str, **settings) -> Run:
        """The process after its end."""
        run = self.start(workdir, *arguments, **settings)
        run.wait()
        return run

    def finish(self, workdir: Path, *arguments: str, **settings) -> Path:
        """The workdir of a process that ended well."""
        run = self.run(workdir, *arguments, **settings)
        assert run.wait() == 0, run.text
        return workdir


def _train(command: list[str], output: str, devices: int, largest_file: int | None, cache: str) -> None:
    from gen1_jax.cli import main

    gc.set_threshold(50_000, 20, 20)  # as in conftest.py
    file = os.open(output, os.O_WRONLY | os.O_APPEND)
    for descriptor in (1, 2):
        os.dup2(file, descriptor)
    os.environ["XLA_FLAGS"] += f" --xla_force_host_platform_device_count={devices}"
    jax.config.update("jax_compilation_cache_dir", cache)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_disable_most_optimizations", True)
    if largest_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))
    sys.exit(main(command))


def checkpoint_steps(workdir: Path) -> list[int]:
    """Of the finished checkpoints."""
    folder = workdir / "checkpoints"
    return sorted(int(path.name) for path in folder.glob("*") if path.name.isdigit()) if folder.exists() else []


def saving(workdir: Path) -> bool:
    """Whether a checkpoint is being written at this moment, or was when its writer died."""
    return any((workdir / "checkpoints").glob("*.orbax-checkpoint-tmp*"))


def record(workdir: Path, step: int) -> dict:
    """What a checkpoint says of itself."""
    return json.loads((workdir / "checkpoints" / str(step) / "record" / "metadata").read_text())


def state(workdir: Path, step: int) -> dict[str, np.ndarray]:
    """All arrays of a checkpoint, by name: params, EMA, optimizer and counters."""
    found = {}
    for item in ("params", "ema", "progress"):
        folder = (workdir / "checkpoints" / str(step) / item).absolute()
        with ocp.StandardCheckpointer() as reader:
            known = reader.metadata(folder).item_metadata.tree
            empty = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), known)
            arrays = reader.restore(folder, empty)
        found |= {item + jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(arrays)}
    return found


def log(workdir: Path) -> list[dict]:
    """Entries of log.jsonl, every line of which must be whole, without those that measure time."""
    timing = ("step_seconds", "examples_per_second", "data_wait_seconds", "tflop_per_second")
    lines = (workdir / "log.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k not in timing} for line in lines]


def assert_same_run(workdir: Path, unbroken: Path, step: int) -> None:
    """Bit for bit: state and data cursor at a step, and what was logged of every step up to it."""
    ours, theirs = state(workdir, step), state(unbroken, step)
    assert ours.keys() == theirs.keys() and {name.split("[")[0] for name in ours} == {"params", "ema", "progress"}
    different = [name for name in ours if ours[name].tobytes() != theirs[name].tobytes()]
    assert not different, different
    assert record(workdir, step)["data"] == record(unbroken, step)["data"]
    assert log(workdir) == log(unbroken)
    assert [entry["step"] for entry in log(workdir)] == list(range(1, step + 1))


def assert_close(workdir: Path, unbroken: Path, step: int) -> None:
    """Equal up to rounding: state, data cursor and logged losses of runs on different devices.

    Adam with a small epsilon would make a step of every gradient that is zero but for rounding.
    """
    ours, theirs = state(workdir, step), state(unbroken, step)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-6 * max(1, np.abs(value).max()), err_msg=name)
    assert record(workdir, step)["data"] == record(unbroken, step)["data"]
    losses, expected = ([(entry["step"], entry["loss"]) for entry in log(folder)] for folder in (workdir, unbroken))
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
