"""`gen1 ...`: arguments in, one clear line out when they are wrong. Heavy imports happen inside commands."""

import argparse
import atexit
import contextlib
import gc
import io
import logging
import os
import resource
import sys
import tempfile
import threading
import traceback
import warnings

from gen1_jax import __version__
from gen1_jax.commands import (
    app,
    bench,
    comfyui,
    customise,
    data,
    demo,
    edit,
    evaluate,
    export,
    models,
    plan,
    study,
    train,
    upscale,
)
from gen1_jax.commands.common import USAGE, OneLineParser
from gen1_jax.errors import START_AGAIN, Failure, UserError, in_one_line, is_about_a_path, is_passing, of_devices
from gen1_jax.parallel.cudnn import skip_slow_engines

_OPEN_FILES = 65_536
_NEW_OBJECTS = 10_000
_SUCCESS, _FAILURE, _INTERRUPTED = 0, 1, 130

_COMMANDS = (
    edit.add_edit,
    upscale.add_upscale,
    demo.add_demo,
    data.add_render,
    data.add_prepare,
    data.add_precompute,
    data.add_data,
    train.add_train,
    customise.add_customise,
    plan.add_plan,
    models.add_import,
    export.add_export,
    models.add_info,
    evaluate.add_evaluate,
    evaluate.add_curves,
    study.add_study,
    bench.add_bench,
    app.add_app,
    comfyui.add_comfyui,
)


def main(arguments: list[str] | None = None) -> int:
    """Run a command. Returns its exit code.

    0; 2 for wrong input; 130 for Ctrl-C; 75 for a training that is to be started again; 1 for a fault of this program.
    """
    if arguments is None:  # the process is this command's
        _collect_rarely()
    _print_anything()
    _open_many_files()
    args = _parse(arguments)
    warnings.showwarning = lambda message, *rest, **more: print(f"gen1: warning: {message}", file=sys.stderr)
    if not args.debug:  # Orbax's threads print what it also raises, in the middle of our one line
        sys.unraisablehook = lambda _: None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    skip_slow_engines()  # some commands compile convolutions before there is a training step, which sees to it, too
    for library in ("absl", "asyncio", "concurrent.futures"):
        logging.getLogger(library).setLevel(logging.CRITICAL)  # how they go about things; errors are raised
    try:
        return args.command(args) or _SUCCESS
    except KeyboardInterrupt:
        print("gen1: interrupted", file=sys.stderr)
        return _INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return _FAILURE
    except Exception as error:
        if args.debug:
            raise
        threading.excepthook = lambda _: None  # nor is what threads say that this leaves in the middle of their work
        code, line = _judge(error, start_again=args.start_again)
        print(f"gen1: {line}", file=sys.stderr)
        return code


def _collect_rarely() -> None:
    """Imports make a million objects that stay: to look for garbage among them again and again takes a second."""
    gc.set_threshold(_NEW_OBJECTS)
    atexit.register(gc.freeze)


def _print_anything() -> None:
    """Lets names and prompts be printed that the terminal has no letters for, as "\\xfc", and streams be closed."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed, as services start programs; what is told goes nowhere
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115, as long as the process
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _open_many_files() -> None:
    """As many as the system lets this user: a data set has more shards than the 256 or 1024 that it begins with."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS allows fewer than it says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _judge(error: Exception, *, start_again: bool) -> tuple[int, str]:
    """Whose doing an error is, as the exit code, and what to say of it.

    Args:
        error: that ended a command.
        start_again: whether the command goes on where it was when storage answers again.
    """
    if start_again and is_passing(error):
        return START_AGAIN, f"{in_one_line(error)}; this may pass, the same command goes on"
    error = of_devices(error) or error
    text = in_one_line(error)
    if isinstance(error, UserError) or is_about_a_path(error):
        return USAGE, text
    if type(error) is not Failure:
        text = f"{type(error).__name__}: {text}"
    if isinstance(error, Failure):
        return _FAILURE, text
    return _FAILURE, f"{text} (a fault of this program: {_keep(error)})"


def _keep(error: Exception) -> str:
    """Writes the traceback to a file; where it is."""
    try:
        with tempfile.NamedTemporaryFile("w", prefix="gen1_traceback_", suffix=".txt", delete=False) as file:
            file.write("".join(traceback.format_exception(error)))
    except OSError:
        return "--debug shows where"
    return f"its traceback is in {file.name}"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    """Arguments; "--config.a.b=c", which only the recipe can judge, is kept aside for commands that take it."""
    parser = _parser()
    args, rest = parser.parse_known_args(arguments)
    if getattr(args, "takes_overrides", False):
        args.overrides = [argument for argument in rest if argument.startswith("--config.")]
        rest = [argument for argument in rest if argument not in args.overrides]
    if rest:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    return args


def _parser() -> OneLineParser:
    parser = OneLineParser(prog="gen1", description="Structure- and content-guided video editing in JAX.")
    parser.add_argument("--version", action="version", version=f"gen1_jax {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, parser_class=OneLineParser)
    for add in _COMMANDS:
        add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
