"""`gen1 app`."""

import argparse
import errno
import importlib.util
import signal
import socket
import threading

from gen1_jax.commands.common import command, use_compilation_cache
from gen1_jax.commands.options import UPSCALER, add_fast, model_of
from gen1_jax.commands.provenance import add_provenance, provenance_options
from gen1_jax.errors import UserError


def add_app(commands) -> None:
    """Declare `gen1 app`."""
    parser = command(
        commands,
        "app",
        _app,
        "edit in the browser: a page for this machine, or for those who can reach it",
        "gen1 app --model nano --port 7860",
    )
    parser.add_argument("--model", metavar="NAME|DIR", help="one that ships, a model folder or a workdir (nano)")
    add_fast(parser)
    parser.add_argument(
        "--upscaler",
        default=UPSCALER,
        metavar="NAME|DIR",
        help=f"a model that enlarges edits and clips, see gen1 upscale ({UPSCALER})",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (127.0.0.1: this machine alone)")
    parser.add_argument("--port", type=int, metavar="N", help="(the first free one from 7860)")
    add_provenance(parser)
    limits = parser.add_argument_group("limits on the input")
    limits.add_argument("--max-upload-mb", type=int, default=64, metavar="MB", help="size of an uploaded file (64)")
    limits.add_argument("--max-frames", type=int, default=64, metavar="N", help="frames of an edit (64)")


def _app(args: argparse.Namespace) -> None:
    if importlib.util.find_spec("gradio") is None:
        raise UserError('gen1 app needs gradio: pip install "gen1-jax[app]"')
    if args.port is not None and not 1 <= args.port <= 65535:
        raise UserError(f"--port must be 1 to 65535, got {args.port}")
    _check_address(args.host, args.port)
    from gen1_jax.app.session import AppOptions, EditSession

    options = AppOptions(
        model=model_of(args),
        upscaler=args.upscaler,
        max_upload_mb=args.max_upload_mb,
        max_frames=args.max_frames,
        **provenance_options(args),
    )
    use_compilation_cache()
    with EditSession(options) as session:
        from gen1_jax.app.page import Page

        page = Page(session)
        try:
            print(f"gen1 app: {_serve(page, args)} (Ctrl-C ends it)", flush=True)
            _wait_for_the_end()
        finally:
            page.close()


def _serve(page, args: argparse.Namespace) -> str:
    """The address. What was free a moment ago may be taken now, or all ports that are tried."""
    try:
        return page.serve(args.host, args.port)
    except OSError:
        which = "all ports that are tried are" if args.port is None else f"--port {args.port} is"
        raise UserError(f"{which} taken: choose a free one with --port N") from None


def _check_address(host: str, port: int | None) -> None:
    """Refuse an address that cannot be listened on, before a model is loaded."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host.strip("[]"), port or 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, kind, protocol) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
    except (socket.gaierror, UnicodeError):
        raise UserError(
            f"--host {host} is not an address: 127.0.0.1 is this machine alone, 0.0.0.0 all that reach it"
        ) from None
    except PermissionError:
        raise UserError(f"--port {port} is kept for the system's own services: choose one from 1024 on") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UserError(
                f"--port {port} is taken: choose another one, or leave --port out for the first free one from 7860"
            ) from None
        raise UserError(f"--host {host} is not an address of this machine") from None


def _wait_for_the_end() -> None:
    """Until Ctrl-C or SIGTERM, which both end it in good order: temporary files are removed."""
    end = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: end.set())
    end.wait()
