"""Whose doing an error is: exit code 2, 75 or 1, and what is said of it."""

import ast
import errno
import io
import re
import resource
import sys
from pathlib import Path

import jax
import pytest

import gen1_jax
from gen1_jax.cli import main
from gen1_jax.commands.common import command, use_compilation_cache
from gen1_jax.errors import Failure, PassingFault, UserError, counted, is_passing, of_devices


@pytest.fixture
def ended(monkeypatch, capsys, tmp_path):
    """ended(error, command): exit code and line of a command that ends with it."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def ended(error, command="info"):
        def fail(*_, **__):
            raise error

        monkeypatch.setattr("gen1_jax.evaluation.info.describe", fail)
        monkeypatch.setattr("gen1_jax.training.recipe.read_recipe", fail)
        code = main(["train", "--config=a.py", "--workdir=b"] if command == "train" else [command])
        out, err = capsys.readouterr()
        assert out == "" and len(err.splitlines()) == 1 and err.startswith("gen1: ")
        return code, err.removeprefix("gen1: ").strip()

    return ended


def caused(error, cause):
    error.__cause__ = cause
    return error


def timed_out():
    return OSError(errno.ETIMEDOUT, "Connection timed out", "/mnt/a")


WRONG = [
    UserError("a.mp4: no such\nfile"),
    FileNotFoundError(errno.ENOENT, "No such file or directory", "a"),
    PermissionError(errno.EACCES, "Permission denied", "a"),
    IsADirectoryError(errno.EISDIR, "Is a directory", "a"),
    OSError(errno.ENOSPC, "No space left on device"),
]
OURS = [ValueError("shapes\ndiffer"), TypeError("x"), KeyError("x"), OSError("?"), RuntimeError(), timed_out()]
PASSING = [
    timed_out(),
    OSError(errno.EIO, "Input/output error"),
    ConnectionResetError("reset"),
    TimeoutError("late"),
    PassingFault("runs/a cannot be written"),
    caused(UserError("runs/a: no such file"), OSError(errno.ESTALE, "Stale file handle")),
    ValueError("UNAVAILABLE: Error writing gs://bucket/a"),
]


@pytest.mark.parametrize("error", WRONG, ids=repr)
@pytest.mark.parametrize("command", ["info", "train"])
def test_what_a_user_did_wrong(ended, error, command, tmp_path):
    assert ended(error, command) == (2, " ".join(str(error).split()))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("error", OURS, ids=repr)
def test_a_fault_of_the_program_keeps_its_traceback(ended, error, tmp_path):
    code, line = ended(error)
    (file,) = tmp_path.iterdir()
    assert code == 1 and line.startswith(type(error).__name__) and str(file) in line
    assert "Traceback" in file.read_text() and "in fail" in file.read_text()


@pytest.mark.parametrize("error", PASSING, ids=repr)
def test_a_training_whose_storage_does_not_answer_is_started_again(ended, error):
    code, line = ended(error, "train")
    assert code == 75 and line.startswith(" ".join(str(error).split()))


@pytest.mark.parametrize("error", [*WRONG, *OURS[:-1], BrokenPipeError()], ids=repr)
def test_what_does_not_pass(error):
    assert not is_passing(error)


NO_DEVICES = [
    RuntimeError("Unable to initialize backend 'tpu': INTERNAL: Failed to open libtpu.so (set JAX_PLATFORMS='' ...)"),
    RuntimeError("Unable to initialize backend 'cuda': FAILED_PRECONDITION: No visible GPU devices."),
]


@pytest.mark.parametrize("error", NO_DEVICES, ids=repr)
def test_devices_that_are_not_there_are_no_fault_of_the_program(ended, error, tmp_path, monkeypatch):
    monkeypatch.setenv("JAX_PLATFORMS", "tpu")
    code, line = ended(error)
    assert code == 2 and line.startswith("JAX_PLATFORMS=tpu: ") and "JAX_PLATFORMS=cpu" in line
    monkeypatch.setenv("JAX_PLATFORMS", "")
    assert ended(error)[1].startswith("Unable to initialize backend") and not list(tmp_path.iterdir())


def test_cuda_without_its_plugin(ended):
    """What JAX raises when it is asked for CUDA alone and has no plugin for it."""
    asserting = compile("def backends():\n    assert None is not None", "/jax/_src/xla_bridge.py", "exec")
    exec(asserting, names := {})
    with pytest.raises(AssertionError) as raised:
        names["backends"]()
    assert of_devices(raised.value) is not None and of_devices(AssertionError()) is None


def test_a_device_whose_memory_is_full_says_what_needs_less(ended, tmp_path):
    code, line = ended(RuntimeError("RESOURCE_EXHAUSTED: Out of memory while trying to allocate 9.2GiB."), "train")
    assert code == 1 and "9.2GiB" in line and "gen1 plan" in line and not list(tmp_path.iterdir())


def test_what_a_terminal_cannot_show_is_printed_all_the_same(monkeypatch):
    """Neither letters that it has not, nor that nobody listens, end a command."""
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", shown)
    monkeypatch.setattr("sys.stderr", None)  # as Python has it where it is closed
    monkeypatch.setattr("gen1_jax.cli._COMMANDS", (_tell,))
    assert main(["tell"]) == 0
    shown.flush()
    assert shown.buffer.getvalue() == b"gr\\xfcn.mp4\n"


def test_a_user_without_a_home_has_no_cache(monkeypatch):
    """Containers of clusters run as users that are in no list."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.setattr("pwd.getpwuid", {}.__getitem__)
    before = jax.config.jax_compilation_cache_dir
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        use_compilation_cache()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)


def test_as_many_files_may_be_open_as_the_system_allows(monkeypatch):
    """One for each shard of a data set, which may be thousands."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr("gen1_jax.cli._COMMANDS", (_count,))
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(200, before[1]), before[1]))
    try:
        assert main(["count"]) == 0
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def _count(commands):
    def counts(args):
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        assert soft == (65_536 if hard == resource.RLIM_INFINITY else min(hard, 65_536))

    command(commands, "count", counts, "x", "x")


def _tell(commands):
    def told(args):
        assert not sys.stderr.isatty()  # asked of by progress bars
        print("gr\xfcn.mp4")

    command(commands, "tell", told, "x", "x")


def test_a_failure_is_nobodys_mistake(ended, tmp_path):
    assert ended(Failure("a worker was killed"), "train") == (1, "a worker was killed")
    assert not list(tmp_path.iterdir())


def test_an_error_of_a_client_of_a_bucket():
    HttpError = type("HttpError", (Exception,), {"__module__": "gcsfs.retry", "code": 503})
    assert is_passing(HttpError())
    HttpError.code = 404
    assert not is_passing(HttpError())


def test_one_thing_is_not_several():
    assert [counted(n, "clip") for n in (0, 1, 2)] == ["0 clips", "1 clip", "2 clips"]
    assert [counted(n, "batch", "batches") for n in (1, 3)] == ["1 batch", "3 batches"]


NOUNS = "clips|frames|steps|images|videos|shots|files|edits|shards|chips|devices|processes|parts|words|structures"
A_NUMBER_OF = re.compile(rf"\{{(?![A-Z_]+\}})[^{{}}]+\}} ({NOUNS})(?![/\w]| a second)")


def test_texts_of_commands_count_in_words_of_one_and_of_several():
    """A number before a noun is put there by `counted`."""
    found = []
    for room in ("commands", "evaluation", "planning", "app"):
        for path in (Path(gen1_jax.__file__).parent / room).glob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.JoinedStr):
                    text = ast.unparse(node)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and "\n\n" not in node.value:
                    text = node.value
                else:
                    continue
                found += [f"{path.name}: {match[0]}" for match in A_NUMBER_OF.finditer(text)]
    assert not found
