"""The files of launch/, and what is run in place of a cluster's own programs."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LAUNCH = ROOT / "launch"

STAND_IN = """#!{python}
import json, os, sys
with open({calls!r}, "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
sys.exit(int(os.environ.get("CODE_OF_" + os.path.basename(sys.argv[0]), "0")))
"""


def calls_of(script: str, *arguments: str, folder: Path, stand_ins: tuple[str, ...], **environment: str):
    """Runs a script of launch/ with other programs in place of those: its exit code, and how it called them."""
    calls = folder / "calls.jsonl"
    calls.write_text("")
    for name in stand_ins:
        program = folder / name
        program.write_text(STAND_IN.format(python=sys.executable, calls=str(calls)))
        program.chmod(0o755)
    env = os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"} | environment
    done = subprocess.run(["bash", LAUNCH / script, *arguments], env=env, cwd=folder, capture_output=True, text=True)
    return done.returncode, [json.loads(line) for line in calls.read_text().splitlines()], done.stderr


def srun_command(recipe: Path | str, workdir: Path | str, folder: Path, *more: str) -> list[str]:
    """What the Slurm script starts as each task."""
    _, calls, error = calls_of(
        "slurm.sbatch", str(recipe), str(workdir), *more, folder=folder, stand_ins=("srun",), SLURM_JOB_ID="7"
    )
    assert len(calls) == 1, error
    return calls[0][calls[0].index("gen1") :]
