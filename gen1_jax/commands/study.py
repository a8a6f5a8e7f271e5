"""`gen1 study`: which of two edits people prefer."""

import argparse
from pathlib import Path

from gen1_jax.commands.common import OneLineParser, command, naming_options, report
from gen1_jax.errors import UserError, counted


def add_study(commands) -> None:
    """Declare `gen1 study`."""
    what = "ask people which of two edits they prefer"
    study = commands.add_parser("study", help=what, description=f"{what[0].upper()}{what[1:]}.")
    steps = study.add_subparsers(title="steps", metavar="STEP", required=True, parser_class=OneLineParser)
    parser = command(
        steps,
        "make",
        _make,
        "make the page of a study: two edits side by side, in an order and on sides of each rater's own",
        "gen1 study make --videos ours=edits theirs=others --sources footage --prompts prompts.csv --out study",
    )
    parser.add_argument(
        "--videos", nargs="+", required=True, metavar="[NAME=]DIR", help="edits, a folder an editor, as their sources"
    )
    parser.add_argument("--sources", required=True, metavar="DIR", help="the clips that were edited")
    parser.add_argument("--prompts", required=True, metavar="TABLE", help="see gen1 evaluate --videos")
    parser.add_argument("--out", required=True, metavar="DIR", help="the study, a new folder")
    parser.add_argument("--question", metavar="TEXT", help="that raters answer (which edit is better)")
    parser.add_argument("--trials", type=int, metavar="N", help="comparisons a rater is shown at most (all)")
    parser.add_argument(
        "--check-every", type=int, metavar="N", help="comparisons to one check, an edit against the same ruined (10)"
    )
    parser.add_argument("--frames", type=int, metavar="N", help="of each clip at most (128)")
    parser.add_argument("--align", choices=("start", "spread"), help="see gen1 evaluate --videos (start)")
    parser.add_argument("--fit", choices=("crop", "stretch"), help="likewise (crop)")
    parser.add_argument("--json", action="store_true", help="print a summary as JSON, and no progress")

    parser = command(
        steps,
        "serve",
        _serve,
        "show the page to raters, and keep every answer as it comes",
        "gen1 study serve study --port 8000",
    )
    parser.add_argument("study", type=Path, metavar="DIR", help="of gen1 study make")
    parser.add_argument("--host", default="127.0.0.1", help="0.0.0.0 for other machines, too (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="(8000)")

    parser = command(
        steps,
        "results",
        _results,
        "tell preferences with their intervals",
        "gen1 study results study",
    )
    parser.add_argument("study", type=Path, nargs="?", metavar="DIR", help="of gen1 study make")
    parser.add_argument("--paper", action="store_true", help="those of the paper, with their intervals, as an example")
    parser.add_argument("--json", action="store_true", help="print them as JSON")


def _make(args: argparse.Namespace) -> None:
    from gen1_jax.data.processes import ProgressLine
    from gen1_jax.evaluation.footage.listing import editors_of
    from gen1_jax.evaluation.footage.pairs import PairOptions
    from gen1_jax.evaluation.study.making import PAGE, StudyOptions, make_study

    given = {"frames": args.frames, "align": args.align, "fit": args.fit}
    shown = {"question": args.question, "most": args.trials, "every": args.check_every}
    with naming_options("frames", "question", most="trials", every="check-every"):
        pairs = PairOptions(size=320, **{name: value for name, value in given.items() if value is not None})
        options = StudyOptions(
            editors=editors_of(args.videos),
            sources=args.sources,
            prompts=args.prompts,
            pairs=pairs,
            **{name: value for name, value in shown.items() if value is not None},
        )
    with ProgressLine("study", "clips", enabled=not args.json) as progress:
        key = make_study(options, Path(args.out), progress)
    page = Path(args.out) / PAGE / "index.html"
    trials, checks = counted(len(key["trials"]), "comparison"), counted(len(key["checks"]), "check")
    text = (
        f"{page}: {trials}, {checks}\n"
        f"gen1 study serve {args.out} keeps answers as they come; or put {page.parent}/ on any web server, and what\n"
        f"raters download and send to you into {args.out}/answers/. gen1 study results {args.out} tells more"
    )
    report({"page": str(page), "comparisons": len(key["trials"]), "checks": len(key["checks"])}, args.json, text)


def _serve(args: argparse.Namespace) -> None:
    from gen1_jax.evaluation.study.serving import make_server

    server = make_server(args.study, args.host, args.port)
    print(f"http://{args.host}:{server.server_port}  answers go to {args.study}/answers; Ctrl-C ends it", flush=True)
    with server:
        server.serve_forever()


def _results(args: argparse.Namespace) -> None:
    from gen1_jax.evaluation.study.answers import OF_PAPER, PAPER, lines, paper_lines, results

    if args.paper:
        return report({"of": OF_PAPER, "won": dict(PAPER)}, args.json, "\n".join(paper_lines()))
    if args.study is None:
        raise UserError("name the folder of a study, or --paper")
    found = results(args.study)
    return report(found, args.json, "\n".join(lines(found)))
