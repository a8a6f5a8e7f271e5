"""The files of launch/, and what is run in place of a cluster's own programs."""

import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import yaml

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


def srun_command(recipe: Path | str, workdir: Path | str, folder: Path, *more: str, **environment: str) -> list[str]:
    """What the Slurm script starts as each task."""
    usual = dict(folder=folder, stand_ins=("srun",), SLURM_JOB_ID="7")
    _, calls, error = calls_of("slurm.sbatch", str(recipe), str(workdir), *more, **usual, **environment)
    assert len(calls) == 1, error
    return calls[0][calls[0].index("gen1") :]


def slurm_options() -> dict[str, str]:
    """Of its #SBATCH lines, those that have a value."""
    return dict(re.findall(r"^#SBATCH --([a-z-]+)=(\S+)$", (LAUNCH / "slurm.sbatch").read_text(), re.M))


def skypilot_command(folder: Path, **environment: str) -> list[str]:
    """What the SkyPilot task runs on the second of its machines."""
    task = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())
    (folder / "run.sh").write_text(task["run"])
    cluster = dict(SKYPILOT_NODE_IPS="10.0.0.1\n10.0.0.2", SKYPILOT_NUM_NODES="2", SKYPILOT_NODE_RANK="1")
    usual = dict(folder=folder, stand_ins=("gen1",), SKYPILOT_NUM_GPUS_PER_NODE="8", **cluster)
    code, calls, error = calls_of(str(folder / "run.sh"), **usual, **(task["envs"] | environment))
    assert code == 0 and len(calls) == 1, error
    return calls[0]


def jobset_job() -> dict:
    """The replicated job of the JobSet."""
    manifest = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    return manifest["spec"]["replicatedJobs"][0]["template"]["spec"]


def jobset_command() -> list[str]:
    """What each pod of the JobSet runs."""
    (container,) = jobset_job()["template"]["spec"]["containers"]
    return [*container["command"], *container["args"]]


def xpk_options() -> dict[str, str]:
    """Of the XPK command in the JobSet's comments; all have a value."""
    (command,) = re.findall(r"^ *xpk workload create (.*)$", uncommented("gke_jobset.yaml"), re.M)
    words = [word for argument in shlex.split(command) for word in argument.split("=", 1)]
    return {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}


def uncommented(name: str) -> str:
    """The text of a file without the marks of its comments, and with lines that go on joined."""
    return re.sub(r"\s*\\\n\s*", " ", re.sub(r"^#(?: |$)", "", (LAUNCH / name).read_text(), flags=re.M))
