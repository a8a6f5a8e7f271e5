"""Everything in launch/ as far as it can be tested without a cluster: syntax, schemas, what scripts call."""

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import pytest
import yaml
from launch_files import LAUNCH, ROOT, calls_of, skypilot_command, slurm_options, srun_command

from gen1_jax.cli import _parser
from gen1_jax.training.recipe import read_recipe

SCRIPTS = [*sorted(LAUNCH.glob("*.sh")), *sorted(LAUNCH.glob("*.sbatch")), ROOT / ".ci" / "run"]


def fields(required=(), **properties):
    return {"type": "object", "required": list(required), "additionalProperties": False, "properties": properties}


def pinned(**values):
    return fields(values, **{name: {"const": value} for name, value in values.items()})


TEXT, COUNT = {"type": "string", "minLength": 1}, {"type": "integer", "minimum": 1}
NAME = {"type": "string", "pattern": r"^[a-z]([-a-z0-9]*[a-z0-9])?$"}
TEXTS = {"type": "object", "additionalProperties": TEXT}

# https://jobset.sigs.k8s.io and Kubernetes' Job and Pod: the fields that are used, and no others.
CONTAINER = fields(
    ("name", "image", "command", "resources"),
    name=NAME,
    image=TEXT,
    command={"type": "array", "items": TEXT},
    args={"type": "array", "items": TEXT},
    resources=fields(("limits",), limits={"type": "object", "additionalProperties": COUNT}),
    volumeMounts={"type": "array", "items": fields(("name", "mountPath"), name=NAME, mountPath=TEXT)},
)
POD = fields(
    ("restartPolicy", "containers", "nodeSelector"),
    restartPolicy={"enum": ["Never", "OnFailure"]},
    terminationGracePeriodSeconds=COUNT,
    serviceAccountName=NAME,
    nodeSelector=TEXTS,
    containers={"type": "array", "minItems": 1, "items": CONTAINER},
    volumes={"type": "array", "items": fields(("name",), name=NAME, emptyDir=fields((), medium=TEXT))},
)
CODE = {"type": "integer", "minimum": 1, "maximum": 255}
CODES = {"type": "array", "minItems": 1, "uniqueItems": True, "items": CODE}
POD_FAILURE = fields(  # https://kubernetes.io/docs/concepts/workloads/controllers/job/#pod-failure-policy
    ("action",),
    action={"enum": ["FailJob", "Ignore", "Count"]},
    onExitCodes=fields(("operator", "values"), containerName=NAME, operator={"enum": ["In", "NotIn"]}, values=CODES),
    onPodConditions={"type": "array", "items": pinned(type="DisruptionTarget", status="True")},
)
JOB = fields(
    ("parallelism", "completions", "backoffLimit", "podFailurePolicy", "template"),
    podFailurePolicy=fields(("rules",), rules={"type": "array", "minItems": 1, "items": POD_FAILURE}),
    parallelism=COUNT,
    completions=COUNT,
    backoffLimit={"const": 0},  # else a pod is started again alone, and waits for the others for ever
    template=fields(("spec",), spec=POD),
)
REPLICATED = fields(("name", "template"), name=NAME, replicas=COUNT, template=fields(("spec",), spec=JOB))
RULE = fields(
    ("name", "action"),
    name={"type": "string", "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$"},
    action={"enum": ["FailJobSet", "RestartJobSet", "RestartJobSetAndIgnoreMaxRestarts"]},
    onJobFailureReasons={"type": "array", "items": {"enum": ["PodFailurePolicy", "BackoffLimitExceeded"]}},
)
JOBSET = fields(
    ("apiVersion", "kind", "metadata", "spec"),
    apiVersion={"const": "jobset.x-k8s.io/v1alpha2"},
    kind={"const": "JobSet"},
    metadata=fields(("name",), name=NAME, annotations=TEXTS),
    spec=fields(
        ("replicatedJobs",),
        failurePolicy=fields(("maxRestarts",), maxRestarts=COUNT, rules={"type": "array", "items": RULE}),
        replicatedJobs={"type": "array", "minItems": 1, "items": REPLICATED},
    ),
)

# https://docs.skypilot.co/en/latest/reference/yaml-spec.html
ENVS = {"type": "object", "additionalProperties": {"type": "string"}}
MOUNT = fields(("source", "mode"), source=TEXT, mode={"enum": ["MOUNT", "MOUNT_CACHED", "COPY"]})
RESOURCES = fields(
    ("accelerators",),
    accelerators={"type": "string", "pattern": r"^[A-Z0-9-]+:\d+$"},
    use_spot={"type": "boolean"},
    disk_size=COUNT,
    job_recovery=fields(
        ("recover_on_exit_codes",),
        strategy={"enum": ["FAILOVER", "EAGER_NEXT_REGION"]},
        max_restarts_on_errors=COUNT,
        recover_on_exit_codes=CODES,
    ),
)
SKYPILOT = fields(
    ("resources", "run"),
    **dict(name=NAME, num_nodes=COUNT, workdir=TEXT, resources=RESOURCES, envs=ENVS, setup=TEXT, run=TEXT),
    file_mounts={"type": "object", "additionalProperties": {"anyOf": [TEXT, MOUNT]}},
)


def parsed(command):
    """The arguments of a `gen1` command as gen1 understands them; it exits if it does not."""
    assert command[0] == "gen1"
    args, rest = _parser().parse_known_args(command[1:])
    assert all(word.startswith("--config.") for word in rest), rest
    return args


def shellcheck(*arguments, **options):
    checker = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:/usr/bin:/usr/local/bin")
    done = subprocess.run([checker, *arguments], capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.name)
def test_scripts_have_no_pitfalls(path):
    shellcheck(path)
    assert path.stat().st_mode & 0o111, f"{path.name} is not executable"


@pytest.mark.parametrize("part", ["setup", "run"])
def test_the_scripts_of_the_skypilot_task_have_none_either(part):
    ours = "SC1090,SC1091"  # it cannot follow the script that activates an environment
    script = yaml.safe_load((LAUNCH / "skypilot.yaml").read_text())[part]
    shellcheck("--shell=bash", f"--exclude={ours}", "-", input=script)


@pytest.mark.parametrize(
    ("start", "networks", "again"),
    [({}, ["vae", "depth", "clip", "prior"], ""), ({"FROM": "nano", "SEED": "3"}, ["vae", "prior"], ":again")],
)
@pytest.mark.parametrize("gpus", ["0", "2"])
def test_nano_trains_what_the_model_that_it_starts_from_lacks(tmp_path, start, networks, again, gpus):
    nothing_else = {"FROM": "", "SEED": "0", "GPUS": gpus, "PROCESSES": "1", "CLIPS": "16", "TRAIN": "--config.seed=5"}
    code, calls, error = calls_of(
        "nano.sh", str(tmp_path / "out"), folder=tmp_path, stand_ins=("gen1",), **(nothing_else | start)
    )
    assert code == 0, error
    trainings = [call for call in calls if call[1] == "train"]
    assert all(call[-1] == "--config.seed=5" for call in trainings) and "--config.model=./encoders" in trainings[-1]
    trained = [parsed(call) for call in trainings]
    assert sorted(Path(args.workdir).name for args in trained) == sorted([*networks, "unet"])
    assert all(Path(args.config.removesuffix(again)).is_file() and args.config.endswith(again) for args in trained)
    *begun, encoders, model = [parsed(call) for call in calls if call[1] == "export"]
    assert [export.model for export in begun] == list(start.values())[:1]
    assert sorted(encoders.parts) == sorted((network, f"runs/{network}") for network in networks)
    assert calls[-1][1] == "export" and model.output == "nano"
    assert {call[call.index("--seed") + 1] for call in calls if call[1] == "render"} == {start.get("SEED", "0")}


@pytest.mark.parametrize("gpus", ["0", "2"])
def test_nano2_goes_on_from_nano_with_more_inputs(tmp_path, gpus):
    environment = {"FROM": "nano", "SEED": "3", "GPUS": gpus, "CLIPS": "16", "TRAIN": ""}
    code, calls, error = calls_of(
        "nano.sh", str(tmp_path / "out"), "nano2", folder=tmp_path, stand_ins=("gen1",), **environment
    )
    assert code == 0, error
    *latents, first, then, export = calls
    assert [call[1] for call in calls] == ["precompute"] * (int(gpus) or 1) + ["train", "train", "export"]
    assert all("worlds:16@3" in call and "worlds_inputs" in call for call in latents)
    parts = [parsed(call).config.partition("nano2.py")[2] for call in (first, then)]
    assert parts == ["", ":long"] and "--config.model=runs/nano2" in then
    assert parsed(export).model == "runs/nano2_long" and parsed(export).output == "nano2"


@pytest.mark.parametrize("gpus", ["0", "2"])
def test_an_upscaler_goes_on_from_nano_on_worlds_of_twice_the_size(tmp_path, gpus):
    environment = {"FROM": "start", "SEED": "3", "GPUS": gpus, "CLIPS": "16", "TRAIN": ""}
    code, calls, error = calls_of(
        "nano.sh", str(tmp_path / "out"), "upscaler", folder=tmp_path, stand_ins=("gen1",), **environment
    )
    assert code == 0, error
    *latents, train, export = calls
    assert [call[1] for call in latents] == ["precompute"] * (int(gpus) or 1)
    for call in map(parsed, latents):
        assert (call.data, call.size, call.structure, call.out) == (
            *("worlds:16@3", "256x256", "low_resolution", "worlds_large"),
        )
    assert parsed(train).config.endswith("nano_upscaler.py") and "--config.model=nano" in train
    assert (parsed(export).model, str(parsed(export).output)) == ("runs/upscaler", "nano_upscaler")


@pytest.mark.parametrize("target", ["fast", "flow", "split"])
def test_nano_in_few_steps_as_a_flow_and_with_a_split_begin_from_the_nano_that_ships(tmp_path, target):
    environment = {"FROM": "start", "GPUS": "0", "CLIPS": "16", "TRAIN": ""}
    code, calls, error = calls_of(
        "nano.sh", str(tmp_path / "out"), target, folder=tmp_path, stand_ins=("gen1",), **environment
    )
    assert code == 0, error
    latents, train, export = map(parsed, calls)
    assert (latents.model, str(latents.out)) == ("nano", "worlds_latents")
    assert train.config.endswith(f"nano_{target}.py") and "--config.model=nano" in calls[1]
    assert (export.model, str(export.output)) == (train.workdir, f"nano_{target}")


def test_nano_with_a_transformer_is_trained_beside_nanos_other_networks_as_long_as_its_unet(tmp_path):
    environment = {"FROM": "start", "GPUS": "0", "CLIPS": "16", "TRAIN": ""}
    code, calls, error = calls_of(
        "nano.sh", str(tmp_path / "out"), "dit", folder=tmp_path, stand_ins=("gen1",), **environment
    )
    assert code == 0, error
    latents, first, then, export = calls
    assert (parsed(latents).model, str(parsed(latents).out)) == ("nano", "worlds_latents")
    parts = [parsed(call).config.partition("nano_dit.py")[2] for call in (first, then)]
    assert parts == ["", ":again"] and "--config.model=nano" in first and "--config.model=runs/dit" in then
    assert parsed(export).model == "runs/dit_again" and parsed(export).output == "nano_dit"


def test_each_rate_of_a_split_is_trained_and_swapped_beside_nano(tmp_path):
    environment = {"STEPS": "7", "CLIPS": "3", "TRAIN": ""}
    arguments = (str(tmp_path), "8x1x4", "16x2x8")
    code, calls, error = calls_of(
        "split_rates.sh", *arguments, folder=tmp_path, stand_ins=("gen1", "python"), **environment
    )
    assert code == 0, error
    *runs, table = calls
    assert [call[1] for call in runs] == ["evaluate", "train", "evaluate", "train", "evaluate"]
    swaps, trains = (list(map(parsed, calls)) for calls in (runs[::2], runs[1::2]))
    assert [swap.model for swap in swaps] == ["nano", *(train.workdir for train in trains)]
    assert {(swap.benchmark, swap.clips, swap.judge) for swap in swaps} == {("swap", 3, "nano-judge")}
    recipe = read_recipe(trains[1].config, [argument for argument in runs[3] if argument.startswith("--config.")])
    assert (recipe.split.grid, recipe.split.groups, recipe.split.bits, recipe.total_steps) == (16, 2, 8, 7)
    assert table[0].endswith("python") and table[1].endswith("split_table.py")


@pytest.mark.parametrize("gpus", ["0", "2"])
def test_the_judge_is_of_other_worlds_than_nano(tmp_path, gpus):
    environment = {"FROM": "nano", "SEED": "3", "GPUS": gpus, "PROCESSES": "1", "CLIPS": "16", "TRAIN": ""}
    code, calls, error = calls_of(
        "nano.sh", str(tmp_path / "out"), "judge", folder=tmp_path, stand_ins=("gen1",), **environment
    )
    assert code == 0, error
    *renders, train, export = calls
    assert all(call[1] == "render" and "worlds_judge" in call for call in renders)
    assert {call[call.index("--seed") + 1] for call in renders} == {"4"}
    assert parsed(train).config.endswith("nano_clip.py:judge") and "--config.model=nano" in train
    assert parsed(export).model == parsed(train).workdir and parsed(export).format == "clip"


def test_jobset_is_one():
    manifest = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    jsonschema.validate(manifest, JOBSET)
    job = manifest["spec"]["replicatedJobs"][0]["template"]["spec"]
    pod = job["template"]["spec"]
    (container,) = pod["containers"]
    chips = 1
    for side in pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"].split("x"):
        chips *= int(side)
    hosts = chips // container["resources"]["limits"]["google.com/tpu"]
    assert job["parallelism"] == job["completions"] == hosts
    args = parsed([*container["command"], *container["args"]])
    assert (ROOT / args.config).is_file() and args.workdir.startswith("gs://")
    assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}


def test_schemas_refuse_what_is_wrong():
    manifest = yaml.safe_load((LAUNCH / "gke_jobset.yaml").read_text())
    manifest["spec"]["replicatedJobs"][0]["template"]["spec"]["paralelism"] = 2
    with pytest.raises(jsonschema.ValidationError, match="paralelism"):
        jsonschema.validate(manifest, JOBSET)


def test_commands_in_the_comments_of_the_jobset_are_understood():
    text = (LAUNCH / "gke_jobset.yaml").read_text()
    parsed(shlex.split(re.search(r'--command="([^"]*)"', text).group(1)))
    flags = re.search(r"args: \[\.\.\., (.*)\]", text).group(1).replace("$(JOB_COMPLETION_INDEX)", "3").split(", ")
    args = parsed(["gen1", "train", "--config=a.py", "--workdir=b", *flags])
    manifest = yaml.safe_load(text)
    jobset, group = manifest["metadata"]["name"], manifest["spec"]["replicatedJobs"][0]["name"]
    assert args.coordinator_address == f"{jobset}-{group}-0-0.{jobset}:8476"  # how JobSet names the first pod
    assert (args.num_processes, args.process_id) == (8, 3)


def test_skypilot_task_is_one(tmp_path):
    text = (LAUNCH / "skypilot.yaml").read_text()
    task = yaml.safe_load(text)
    jsonschema.validate(task, SKYPILOT)
    commented = yaml.safe_load(text.replace("# file_mounts:", "file_mounts:").replace("\n#   ", "\n  "))
    jsonschema.validate(commented, SKYPILOT)
    assert commented["file_mounts"]["/bucket"]["source"] == "s3://BUCKET"

    args = parsed(skypilot_command(tmp_path))
    assert (args.coordinator_address, args.num_processes, args.process_id) == ("10.0.0.1:8476", 2, 1)
    assert (ROOT / args.config).is_file() and extras(task["setup"]) <= known_extras()


def known_extras():
    return set(tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"])


def extras(text):
    found = re.findall(r"(?:\.|gen1)\[([a-z0-9,]+)\]", text)
    assert found, "nothing is installed"
    return {name for names in found for name in names.split(",")}


@pytest.mark.parametrize("name", ["Dockerfile.gpu", "Dockerfile.tpu"])
def test_dockerfiles_copy_what_is_there_and_install_extras_that_exist(name):
    lines = [line for line in (LAUNCH / name).read_text().splitlines() if line and not line.startswith("#")]
    instructions = [line.split(None, 1) for line in "\n".join(lines).replace("\\\n", " ").splitlines()]
    words = [word for word, _ in instructions]
    assert words[0] == "FROM" and instructions[0][1] == "python:3.11-slim"
    assert set(words) <= {"FROM", "ENV", "RUN", "WORKDIR", "COPY", "CMD"}
    copied = [path for word, rest in instructions if word == "COPY" for path in rest.split()[:-1]]
    assert all((ROOT / path).exists() for path in copied)
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())
    needed = {build["project"]["readme"], *build["project"]["license-files"], "gen1_jax", "configs", "pyproject.toml"}
    assert all(path in copied or path.split("/")[0] in copied for path in needed)
    assert extras((LAUNCH / name).read_text()) <= known_extras()


def test_slurm_script_starts_a_task_a_gpu_and_queues_again_what_was_told_to_end(tmp_path):
    usual = dict(folder=tmp_path, stand_ins=("srun", "scontrol"), SLURM_JOB_ID="7")
    code, calls, error = calls_of("slurm.sbatch", "a b.py", "/runs/x", "--config.log_every=5", **usual)
    assert code == 0 and [call[0] for call in calls] == ["srun"], error
    args = parsed(calls[0][calls[0].index("gen1") :])
    assert (args.config, args.workdir, args.coordinator_address) == ("a b.py", "/runs/x", None)
    code, calls, _ = calls_of("slurm.sbatch", "a.py", "/runs/x", **usual, CODE_OF_srun="75")
    assert code == 75 and calls[1:] == [["scontrol", "requeue", "7"]]
    code, calls, _ = calls_of("slurm.sbatch", "a.py", "/runs/x", **usual, CODE_OF_srun="2")
    assert code == 2 and len(calls) == 1
    options = slurm_options()
    assert options["ntasks-per-node"] == options["gpus-per-node"]
    assert "\n#SBATCH --requeue\n" in (LAUNCH / "slurm.sbatch").read_text()
    assert srun_command("a.py", "w", tmp_path)[:2] == ["gen1", "train"]


def test_beam_script_chooses_the_runner(tmp_path):
    usual = dict(folder=tmp_path, stand_ins=("gen1",), MASTER="flink:8081")
    code, calls, error = calls_of("beam_prepare.sh", "/in", "/out", "--frames", "4", **usual)
    args = parsed(calls[0])
    assert (code, args.runner, args.videos, args.out, args.frames) == (0, "beam", "/in", "/out", 4), error
    options = shlex.split(args.beam_options)
    assert options[:2] == ["--runner=FlinkRunner", "--flink_master=flink:8081"]


def test_tpu_script_creates_installs_and_runs_on_all_workers(tmp_path):
    shutil.copytree(LAUNCH, tmp_path / "launch")
    usual = dict(folder=tmp_path, stand_ins=("gcloud", "git"))
    more = "--config.data.video.sources=(1, 2)"
    arguments = ("gen1", "us-west4-a", "v5litepod-256", "gs://b/run", "configs/gen1.py", more)
    code, calls, error = calls_of("tpu_vm.sh", *arguments, **usual)
    assert code == 0, error
    verbs = [call[4] for call in calls if call[0] == "gcloud"]
    assert verbs == ["describe", "scp", "ssh", "ssh"]
    code, calls, error = calls_of("tpu_vm.sh", *arguments, **usual, CODE_OF_gcloud="1", CREATE="--spot")
    assert code == 1 and [call[4] for call in calls] == ["describe", "create"]  # there is none, and none to be had
    create = calls[1]
    assert create[create.index("--version") + 1] == "v2-alpha-tpuv5-lite" and "--spot" in create
    code, calls, _ = calls_of("tpu_vm.sh", *arguments, **usual)
    assert all("--worker=all" in call for call in calls if call[4:5] in (["ssh"], ["scp"]))
    assert extras(calls[-2][-1]) <= known_extras()
    run = calls[-1][-1].split("&& ")[-1].removeprefix("~/gen1-env/bin/")
    args = parsed(shlex.split(run))
    assert (args.config, args.workdir) == ("configs/gen1.py", "gs://b/run")
    assert shlex.split(run)[-1] == more


def test_every_file_is_in_the_table():
    table = (LAUNCH / "README.md").read_text()
    files = {path.name for path in LAUNCH.iterdir() if path.suffix != ".py" and path.is_file()} - {"README.md"}
    assert not {name for name in files if f"`{name}`" not in table}
