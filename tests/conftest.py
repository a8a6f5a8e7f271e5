import gc
import os
import sys
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # or each process that tests start compiles the package anew
# XLA's older code generator, in one part, compiles a training step in half of the time.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
sys.path.insert(0, str(Path(__file__).parent))

import pytest
from checked import check_annotations

check_annotations("gen1_jax")
# Imports and tracing make many objects and no garbage: searching all for it takes half of the time of the one, and a
# tenth of that of the other.
gc.set_threshold(200_000, 50, 50)

LONGEST = (
    *("test_notebooks", "test_smoke", "test_kill", "test_step", "test_nano", "test_resume", "test_benchmark"),
    *("test_torch_format", "test_public_edit", "test_eight_devices", "test_pipeline", "test_processes_train"),
    *("test_customise", "test_objectives", "test_processes_slurm", "test_cli", "test_plan", "test_bench"),
    *("test_consistency", "test_rivals", "test_split_recipe", "test_dit_recipe", "test_flow_recipe"),
)


def pytest_collection_modifyitems(items):
    """The longest files come first, lest one process work at the last of them while the others wait."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_collection_finish():
    """What has been imported stays."""
    gc.freeze()


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item, nextitem):
    """What a file leaves (programs, above all) stays, too: searching all of it takes seconds each time."""
    if nextitem is None or nextitem.path != item.path:
        gc.collect()
        gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """A file's tests stay in one process, for what they share; notebooks share nothing."""
    from xdist.scheduler import LoadFileScheduling

    class Scheduling(LoadFileScheduling):
        def _split_scope(self, nodeid):
            return nodeid if "test_notebooks" in nodeid else super()._split_scope(nodeid)

    return Scheduling(config, log) if config.getvalue("dist") == "loadfile" else None


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """A model folder of the smallest family, made once."""
    from tiny import save_tiny_model

    return save_tiny_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="session", autouse=True)
def settings_folder(tmp_path_factory):
    """The identity that signs edits is made for the tests, and not in the settings of who runs them."""
    os.environ["XDG_CONFIG_HOME"] = str(tmp_path_factory.mktemp("settings"))


@pytest.fixture(scope="session", autouse=True)
def compilation_cache(tmp_path_factory, worker_id):
    """Tests of one run share compiled programs, those of its other processes too; nothing is kept for the next."""
    import jax

    run = tmp_path_factory.getbasetemp() if worker_id == "master" else tmp_path_factory.getbasetemp().parent
    settings = {
        "jax_compilation_cache_dir": str(run / "compiled"),
        "jax_persistent_cache_min_compile_time_secs": 0.1,
        "jax_disable_most_optimizations": True,  # tests compile far longer than they compute
    }
    for name, value in settings.items():
        jax.config.update(name, value)
        os.environ[name.upper()] = str(value)  # of the processes that tests start
