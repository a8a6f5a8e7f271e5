"""How a yardstick in PyTorch is timed, and what it prints."""

import argparse
import json
import statistics
import time
from collections.abc import Callable, Iterable

import torch

DEVICE, DTYPE = ("cuda", torch.bfloat16) if torch.cuda.is_available() else ("cpu", torch.float32)
_DRAW = torch.Generator(DEVICE).manual_seed(0)


def arguments(description: str, *, frames: int, height: int, width: int) -> argparse.ArgumentParser:
    """What every yardstick takes, with the clip that it is about."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--frames", type=int, default=frames)
    parser.add_argument("--height", type=int, default=height)
    parser.add_argument("--width", type=int, default=width)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of a run; three runs")
    parser.add_argument(
        "--mode", default="default", help="eager, default, reduce-overhead, max-autotune-no-cudagraphs, ..."
    )
    return parser


def compiled(step: Callable, mode: str) -> Callable:
    """The step by torch.compile, unless the mode is "eager"."""
    return step if mode == "eager" else torch.compile(step, mode=mode, dynamic=False)


def noise(*shape: int, dtype: torch.dtype = DTYPE) -> torch.Tensor:
    """Standard normal, on the device."""
    return torch.randn(shape, generator=_DRAW, device=DEVICE, dtype=dtype)


def scalar(x: float) -> torch.Tensor:
    """A number that the program is told, not built for."""
    return torch.tensor(x, device=DEVICE)


@torch.inference_mode()
def report(run: Callable[[], torch.Tensor], args: argparse.Namespace, models: Iterable[torch.nn.Module]) -> None:
    """Times what `run` does and prints a line of JSON."""
    began = time.perf_counter()
    for _ in range(3):
        finite = bool(run().isfinite().all())
    compile_seconds = time.perf_counter() - began
    if DEVICE == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(3):
        began = time.perf_counter()
        for _ in range(args.steps):
            out = run()
        finite = finite and bool(out.isfinite().all())  # waits for the device
        seconds.append((time.perf_counter() - began) / args.steps)
    result = {
        "device": torch.cuda.get_device_name() if DEVICE == "cuda" else "cpu",
        "torch": torch.__version__,
        "parameters": sum(x.numel() for model in models for x in model.parameters()),
        "dtype": str(DTYPE).removeprefix("torch."),
        **vars(args),
        "compile_seconds": compile_seconds,
        "step_milliseconds": 1000 * statistics.median(seconds),
        "all_step_milliseconds": [1000 * x for x in seconds],
        "peak_bytes": torch.cuda.max_memory_allocated() if DEVICE == "cuda" else None,
        "finite": finite,
    }
    print(json.dumps(result), flush=True)
