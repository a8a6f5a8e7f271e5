"""What commands share: how one is declared, how it reports. Nothing heavy is imported here."""

import argparse
import contextlib
import json
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from gen1_jax.errors import UserError

USAGE = 2


class OneLineParser(argparse.ArgumentParser):
    """Errors in one line, without the usage."""

    def error(self, message: str):
        """Print the line and exit with 2."""
        self.exit(USAGE, f"gen1: {message} (see {self.prog} --help)\n")


def command(commands, name: str, function, summary: str, example: str) -> argparse.ArgumentParser:
    """Add a subcommand: its name, the function that runs it, a line of help and one example."""
    parser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.set_defaults(command=function, start_again=False)
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def use_compilation_cache() -> None:
    """Keep compiled programs in the user's cache folder, if there is one, so that a second run starts at once."""
    import jax

    if jax.config.jax_compilation_cache_dir is None:
        try:
            cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "gen1_jax" / "compiled"
        except RuntimeError:  # a container may run as a user that nobody has told it of
            return
        jax.config.update("jax_compilation_cache_dir", str(cache))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)


@contextlib.contextmanager
def keeping_programs(session: str) -> Iterator[None]:
    """The same, and of what this block runs not even the tracing is done a second time, see `gen1_jax.kept`.

    Args:
        session: what is about to be done, as a name: what the last of that name ran is loaded at once.
    """
    use_compilation_cache()
    import jax

    from gen1_jax.kept import keeping

    cache = jax.config.jax_compilation_cache_dir if jax.config.jax_enable_compilation_cache else None
    local = cache is not None and "://" not in cache
    with keeping(Path(cache) / "programs" if local else None, session):
        yield


def report(summary: dict, as_json: bool, text: str | None) -> None:
    """Print a summary: as JSON, or as the text, which may hold what people wrote, braces among it."""
    print(json.dumps(summary, indent=2) if as_json or text is None else text)


@contextlib.contextmanager
def naming_options(*names: str, **options: str) -> Iterator[None]:
    """What is wrong with a field is said of the option that gave it: "--steps must be 1 to 1000".

    Args:
        names: of fields whose options have the same name, with hyphens.
        options: those of other fields.
    """
    try:
        yield
    except UserError as error:
        field = re.match(r"\w+(?=[ :])", str(error))  # and no name of a file
        known = {name: name.replace("_", "-") for name in names} | options
        if field is None or field[0] not in known:
            raise
        raise UserError(f"--{known[field[0]]}{str(error)[field.end() :]}") from None


def reporting(action: Callable[[argparse.Namespace], tuple[dict, str]]) -> Callable[[argparse.Namespace], None]:
    """A command that reports what `action` returns: a summary, and a text for people."""

    def run(args: argparse.Namespace) -> None:
        use_compilation_cache()
        summary, text = action(args)
        report(summary, args.json, text)

    return run


def leave_devices_free() -> None:
    """For what is planned, whose devices are not here: JAX, which is not imported yet, runs on the CPU."""
    os.environ["JAX_PLATFORMS"] = "cpu"
