"""Exit code 75 means "start me again" wherever gen1 is launched, and is no failure; other codes have an end."""

import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from launch_files import LAUNCH, ROOT, calls_of, jobset_job, slurm_options, uncommented, xpk_options

README = (LAUNCH / "README.md").read_text()


def jobset_action(code, disrupted=False):
    """What JobSet does when a pod ends so, by the rules of Kubernetes' Job controller and JobSet's own."""
    job = jobset_job()
    (container,) = job["template"]["spec"]["containers"]
    reason = "BackoffLimitExceeded"  # no rule holds, and a Job of backoffLimit 0 fails with its first pod
    for rule in job["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {"operator": "In", "values": []})
        assert codes.get("containerName", container["name"]) == container["name"]
        if (code in codes["values"]) == (codes["operator"] == "In") or (disrupted and "onPodConditions" in rule):
            assert rule["action"] == "FailJob"
            reason = "PodFailurePolicy"
            break
    policy = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())["spec"]["failurePolicy"]
    for rule in policy["rules"]:
        if reason in rule["onJobFailureReasons"]:
            return rule["action"], policy["maxRestarts"]
    return "RestartJobSet", policy["maxRestarts"]


@pytest.mark.parametrize("code", [75, 1, 2, 134, 137, 143])
@pytest.mark.parametrize("disrupted", [False, True])
def test_jobset_counts_neither_75_nor_preemptions(code, disrupted):
    action, most = jobset_action(code, disrupted)
    free = code == 75 or disrupted
    assert action == ("RestartJobSetAndIgnoreMaxRestarts" if free else "RestartJobSet")
    assert 1 <= most <= 10
    assert jobset_job()["template"]["spec"]["restartPolicy"] == "Never"  # what a podFailurePolicy takes


def test_xpk_starts_again_on_75_often():
    options = xpk_options()
    assert options["restart-on-exit-codes"] == "75" and int(options["max-restarts"]) >= 50
    assert options["termination-grace-period-seconds"] == "300"  # XPK's 30 are too few to save


def test_skypilot_does_not_count_75():
    recovery = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())["resources"]["job_recovery"]
    assert recovery["recover_on_exit_codes"] == [75] and 1 <= recovery["max_restarts_on_errors"] <= 10


def test_srun_gets_the_cores_that_sbatch_was_given(tmp_path):
    usual = dict(folder=tmp_path, stand_ins=("srun",), SLURM_JOB_ID="7")
    given = slurm_options()["cpus-per-task"]
    _, ((_, *options),), _ = calls_of("slurm.sbatch", "a.py", "w", **usual, SLURM_CPUS_PER_TASK=given)
    assert f"--cpus-per-task={given}" in options[: options.index("gen1")] and int(given) > 1


GCLOUD = """#!{python}
import json, sys
from pathlib import Path
folder = Path({folder!r})
with open(folder / "calls.jsonl", "a") as file:
    file.write(json.dumps(sys.argv[1:]) + chr(10))
acts = json.loads((folder / "acts.json").read_text())
verb = sys.argv[4]
kind = "describe" if verb == "describe" else "train" if "gen1 train" in sys.argv[-1] else None
act = acts[kind].pop(0) if kind else 0
(folder / "acts.json").write_text(json.dumps(acts))
if kind == "describe":
    print(act)
sys.exit(act if kind == "train" else act == "absent")
"""


def tpu_verbs(folder, describe, train, *arguments, **environment):
    """What tpu_vm.sh asks gcloud for, when its TPU is in those states and training ends with those codes."""
    (folder / "acts.json").write_text(json.dumps({"describe": describe, "train": train}))
    gcloud = folder / "gcloud"
    gcloud.write_text(GCLOUD.format(python=sys.executable, folder=str(folder)))
    gcloud.chmod(0o755)
    arguments = arguments or ("gen1", "z", "v5litepod-256", "gs://b/run")
    usual = dict(folder=folder, stand_ins=("git",), POLL="0")
    code, calls, error = calls_of("tpu_vm.sh", *arguments, **usual, **environment)
    assert json.loads((folder / "acts.json").read_text()) == {"describe": [], "train": []}, error
    return code, [call for call in calls if call[0] != "git"]


def verbs(calls):
    """With the runs of gen1 told from the installation."""
    return ["train" if "gen1 train" in call[-1] else call[3] for call in calls]


INSTALL = ["scp", "ssh"]


def test_tpu_vms_start_again_after_75_and_on_a_new_tpu_when_theirs_was_preempted(tmp_path):
    code, calls = tpu_verbs(tmp_path, ["READY", "READY", "READY", "READY"], [75, 2])
    assert code == 2 and verbs(calls) == (["describe", *INSTALL, "train", "describe"] * 2)
    code, calls = tpu_verbs(tmp_path, ["absent", "READY", "PREEMPTED", "PREEMPTED", "absent", "READY"], [255, 0])
    first = ["describe", "create", "describe", *INSTALL, "train", "describe"]
    assert code == 0 and verbs(calls) == [
        *first,
        "describe",
        "delete",
        "describe",
        "create",
        "describe",
        *INSTALL,
        "train",
    ]


@pytest.mark.parametrize("slices", [1, 2])
def test_tpus_of_the_queue_are_waited_for_and_used_whole(tmp_path, slices):
    queue = dict(QUEUED="1") if slices == 1 else dict(SLICES=str(slices))
    states = ["absent", "WAITING_FOR_RESOURCES", "PROVISIONING", "ACTIVE"]
    code, calls = tpu_verbs(tmp_path, states, [0], **queue, CREATE="--spot")
    assert code == 0 and verbs(calls) == ["describe", "create", *["describe"] * 3, *INSTALL, "train"]
    assert all(call[:3] == ["compute", "tpus", "queued-resources"] for call in calls)
    create = calls[1]
    assert "--spot" in create and create[create.index("--runtime-version") + 1] == "v2-alpha-tpuv5-lite"
    nodes = ["--node-id", "gen1"] if slices == 1 else ["--node-count", "2"]
    assert create[create.index(nodes[0]) + 1] == nodes[1]
    assert all({"--node=all", "--worker=all"} <= set(call) for call in calls if call[3] in ("ssh", "scp"))


def test_both_cuda_extras_are_there_and_their_drivers_are_said():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert extras["cuda"] == ["jax[cuda13]"] and extras["cuda12"] == ["jax[cuda12]"]
    drivers = dict(re.findall(r"^\| `(cuda\d*)` \| CUDA \d+ \| (\d+) or newer", README, re.M))
    assert drivers == {"cuda": "580", "cuda12": "525"}  # https://docs.jax.dev/en/latest/installation.html
    for name in ("Dockerfile.gpu", "skypilot.yaml"):
        assert {"580", "cuda12"} <= set(re.findall(r"\w+", uncommented(name)))
    assert str(Path("launch") / "README.md") in (ROOT / "README.md").read_text()
