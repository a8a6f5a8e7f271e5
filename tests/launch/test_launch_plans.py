"""What a file of launch/ starts, on the machine that it names, passes the checks of `gen1 plan`; no compiling."""

import math
import re
import shlex
from types import SimpleNamespace

import numpy as np
import pytest
from launch_files import (
    LAUNCH,
    ROOT,
    calls_of,
    jobset_command,
    jobset_job,
    skypilot_command,
    slurm_options,
    srun_command,
    uncommented,
    xpk_options,
)

from gen1_jax.errors import UserError
from gen1_jax.parallel.mesh import device_grid
from gen1_jax.planning import plan
from gen1_jax.planning.topology import parse_topology
from gen1_jax.training.recipe import read_recipe

SLICES = {"v5litepod-128": "v5e:8x16", "v5litepod-256": "v5e:16x16"}  # gcloud's names
GENERATIONS = {"tpu-v5-lite-podslice": "v5e"}  # GKE's names
RECIPE = "configs/gen1.py"


def recipe_of(words, *more):
    """The recipe of a `gen1 train` or `gen1 plan` command, as gen1 reads it."""
    words = [part for word in words for part in (word.split("=", 1) if word.startswith("--config=") else [word])]
    overrides = [word for word in [*words, *more] if word.startswith("--config.")]
    return read_recipe(ROOT / words[words.index("--config") + 1], overrides)


@pytest.fixture(autouse=True)
def checks_alone(request, monkeypatch):
    """The plan checks recipe, mesh and machine before it looks at programs, and of these at none."""
    if not request.node.get_closest_marker("slow"):
        monkeypatch.setattr(plan, "Programs", lambda *told: SimpleNamespace(parameters=0))


def plan_of(recipe, machine):
    """What the plan says of the machine; it raises where recipe, mesh and machine do not fit each other."""
    return next(plan.make_plan(recipe, parse_topology(machine), programs=(), estimate_only=True))


def tpu_script_command(folder, *arguments, **environment):
    usual = dict(folder=folder, stand_ins=("gcloud", "git"))
    code, calls, error = calls_of("tpu_vm.sh", *arguments, **usual, **environment)
    assert code == 0, error
    return shlex.split(calls[-1][-1].split("&& ")[-1])


def of_slurm(folder):
    options = slurm_options()
    command = srun_command(RECIPE, "w", folder, SLURM_NTASKS_PER_NODE=options["ntasks-per-node"])
    return command, f"gpu:h100:{int(options['nodes']) * int(options['gpus-per-node'])}"


def of_skypilot(folder):
    text = (LAUNCH / "skypilot.yaml").read_text()
    kind, each = re.search(r"accelerators: (\w+):(\d+)", text).groups()
    nodes = re.search(r"^num_nodes: (\d+)", text, re.M)[1]
    return skypilot_command(folder), f"gpu:{kind.lower()}:{int(nodes) * int(each)}"


def of_jobset(folder):
    selector = jobset_job()["template"]["spec"]["nodeSelector"]
    generation = GENERATIONS[selector["cloud.google.com/gke-tpu-accelerator"]]
    return jobset_command(), f"{generation}:{selector['cloud.google.com/gke-tpu-topology']}"


def of_xpk(folder):
    options = xpk_options()
    return shlex.split(options["command"]), SLICES[options["tpu-type"]]


def of_gpu_pods(folder):
    text = uncommented("gke_jobset.yaml")
    (flags,) = re.findall(r"^ *args: \[\.\.\., (.*)\]$", text, re.M)
    hosts, each = re.search(r"--num-processes=(\d+)", flags)[1], re.search(r"gpu: (\d+)", text)[1]
    return [*jobset_command(), *flags.split(", ")], f"gpu:h100:{int(hosts) * int(each)}"


def of_tpu_script(folder):
    example = re.search(r"launch/tpu_vm.sh (gen1 \S+ (\S+) gs://.*)", uncommented("tpu_vm.sh"))
    return tpu_script_command(folder, *shlex.split(example[1])), SLICES[example[2]]


def of_docker(name):
    def start(folder):
        (command,) = re.findall(r"gen1:\w+ (gen1 train .*)", uncommented(name))
        return shlex.split(command), plan_in(name)[plan_in(name).index("--topology") + 1]

    return start


def plan_in(name):
    """The arguments of the `gen1 plan` with which a file says that it was checked."""
    (command,) = re.findall(r"(?<=gen1 plan )--config .*", uncommented(name))
    return shlex.split(command)


STARTS = {
    "slurm.sbatch": of_slurm,
    "skypilot.yaml": of_skypilot,
    "gke_jobset.yaml": of_jobset,
    "gke_jobset.yaml, XPK": of_xpk,
    "gke_jobset.yaml, GPUs": of_gpu_pods,
    "tpu_vm.sh": of_tpu_script,
    "Dockerfile.gpu": of_docker("Dockerfile.gpu"),
    "Dockerfile.tpu": of_docker("Dockerfile.tpu"),
}


@pytest.mark.parametrize("name", STARTS)
def test_what_a_file_starts_is_planned_for_the_machine_that_it_names(name, tmp_path):
    words, machine = STARTS[name](tmp_path)
    recipe = recipe_of(words)
    assert plan_of(recipe, machine)["chips"] == parse_topology(machine).chips
    file, *variant = name.split(", ")
    if not variant:  # the command in its first lines is about the same
        planned = plan_in(file)
        assert planned[planned.index("--topology") + 1] == machine
        assert recipe_of(planned).mesh == recipe.mesh


@pytest.mark.slow
@pytest.mark.parametrize("name", STARTS)
def test_it_fits_by_the_plans_formulas(name, tmp_path):
    words, machine = STARTS[name](tmp_path)
    _, *programs, _ = plan.make_plan(recipe_of(words), parse_topology(machine), estimate_only=True)
    assert len(programs) == 3 and all(row["fits"] for row in programs)


def test_a_file_that_names_hardware_is_among_them():
    names = re.compile(r"h100|v5litepod|gke-tpu|--topology", re.I)
    with_hardware = {path.name for path in LAUNCH.iterdir() if path.suffix != ".md" and names.search(path.read_text())}
    assert with_hardware == {name.split(",")[0] for name in STARTS}


def test_the_plan_refuses_the_mesh_of_256_chips_on_64_gpus():
    with pytest.raises(UserError, match="256 devices, but there are 64"):
        plan_of(recipe_of(["--config", RECIPE]), "gpu:h100:64")


@pytest.mark.parametrize("nodes", [1, 2, 4, 8, 16])
def test_slurms_mesh_is_one_for_any_number_of_nodes(nodes, tmp_path):
    recipe = recipe_of(srun_command(RECIPE, "w", tmp_path, SLURM_NTASKS_PER_NODE="8"))
    assert plan_of(recipe, f"gpu:h100:{8 * nodes}")["mesh"]["fsdp"] == 8


def test_a_mesh_at_the_end_of_the_command_comes_last(tmp_path):
    more = ("--config.mesh.data=2", "--config.mesh.fsdp=4")
    recipe = recipe_of(srun_command(RECIPE, "w", tmp_path, *more, SLURM_NTASKS_PER_NODE="8"))
    assert str(recipe.mesh) == "data=2,fsdp=4,tensor=1,context=1"


def slices(count, each):
    """Devices of several slices, as far as a mesh looks at them."""
    return [
        SimpleNamespace(id=i, slice_index=i // each, platform="gpu", device_kind="gpu", process_index=i)
        for i in range(count * each)
    ]


def test_several_slices_are_as_many_chips_and_lie_along_data(tmp_path):
    (count, kind), *_ = re.findall(r"SLICES=(\d+) launch/tpu_vm.sh gen1 \S+ (\S+)", uncommented("tpu_vm.sh"))
    words = tpu_script_command(tmp_path, "gen1", "z", kind, "gs://b/run", RECIPE, SLICES=count)
    chips = parse_topology(SLICES[kind]).chips
    mesh = plan_of(recipe_of(words), "v5e:16x16")["mesh"]
    assert math.prod(mesh.values()) == int(count) * chips
    grid = device_grid(tuple(mesh.values()), slices(int(count), chips))
    by_data = np.vectorize(lambda device: device.slice_index)(grid).reshape(mesh["data"], -1)
    assert all(len(set(row)) == 1 for row in by_data.tolist())

    hint = r"replicas: (\d+), parallelism: (\d+), completions: (\d+), cloud.google.com/gke-tpu-topology: (\S+)"
    replicas, hosts, completions, sides = re.search(hint, uncommented("gke_jobset.yaml")).groups()
    assert int(replicas) * parse_topology(f"v5e:{sides}").chips == math.prod(mesh.values())
    assert int(hosts) == int(completions) == parse_topology(f"v5e:{sides}").hosts


@pytest.mark.parametrize("gpus", [1, 2, 4, 8])
@pytest.mark.parametrize("name", ["own", "nano"])
def test_recipes_of_one_machine_are_for_any_number_of_its_gpus(name, gpus):
    assert plan_of(recipe_of(["--config", f"configs/{name}.py"]), f"gpu:h200:{gpus}")["chips"] == gpus


@pytest.mark.parametrize("start", ["slurm.sbatch", "skypilot.yaml", "tpu_vm.sh"])
def test_data_and_model_come_from_the_environment_or_stay_the_recipes(start, tmp_path):
    given = dict(VIDEOS="/shared/clips", IMAGES="gs://b/pictures", MODEL="/shared/model")
    if start == "slurm.sbatch":
        command = lambda **environment: srun_command(RECIPE, "/runs/x", tmp_path, **environment)
    elif start == "skypilot.yaml":
        command = lambda **environment: skypilot_command(tmp_path, WORKDIR="/runs/x", **environment)
    else:
        usual = ("gen1", "z", "v5litepod-256", "/runs/x")
        command = lambda **environment: tpu_script_command(tmp_path, *usual, **environment)
    words = command(**given)
    recipe = recipe_of(words)
    assert [source.path for source in recipe.data.video.sources] == ["/shared/clips"]
    assert [source.path for source in recipe.data.image.sources] == ["gs://b/pictures"]
    assert recipe.model == "/shared/model" and words[words.index("--workdir") + 1] == "/runs/x"
    own = recipe_of(command(**dict.fromkeys(given, "")))
    assert (own.model, own.data) == ((plain := recipe_of(["--config", RECIPE])).model, plain.data)


@pytest.mark.parametrize("name", ["gke_jobset.yaml", "gke_jobset.yaml, XPK", "Dockerfile.gpu", "Dockerfile.tpu"])
def test_data_and_workdir_are_arguments_where_files_are_edited(name, tmp_path):
    words, _ = STARTS[name](tmp_path)
    recipe, place = recipe_of(words), ("/data/", "gs://BUCKET/")
    assert all(source.path.startswith(place) for source in recipe.data.video.sources + recipe.data.image.sources)
    assert any("workdir" in word for word in words)
