"""What a notebook has for people in Colab: a badge, a cell that installs anywhere, forms, uploads, stored pictures."""

import ast
import glob
import importlib.util
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from types import ModuleType, SimpleNamespace

import jax.numpy as jnp
import nbformat
import pytest

from gen1_jax.cli import _parse
from gen1_jax.parallel import hardware

COLABS = Path(__file__).parents[2] / "colabs"
NOTEBOOKS = sorted(COLABS.glob("*.ipynb"))
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def cells_of(path):
    return {cell.id: cell for cell in nbformat.read(path, as_version=nbformat.NO_CONVERT).cells}


INSTALL = cells_of(NOTEBOOKS[0])["install"].source
ADDRESS = re.compile(r"(?:github\.com|colab\.research\.google\.com/github)/([^/\s]+)/gen1_jax")


def test_one_account_stands_in_badges_and_cells_and_is_nobodys():
    texts = [path.read_text() for path in (*NOTEBOOKS, COLABS / "README.md")]
    (account,) = {account for text in texts for account in ADDRESS.findall(text)}
    assert (
        account == "YOUR_ACCOUNT"
    )  # no name on GitHub has "_": until it is replaced nothing of a stranger's is opened


@each
def test_the_badge_opens_this_notebook(path):
    first = cells_of(path)["title"].source.splitlines()[0]
    image, place = re.fullmatch(r"\[!\[Open in Colab\]\((.*)\)\]\((.*)\)", first).groups()
    assert image == "https://colab.research.google.com/assets/colab-badge.svg"
    assert place.endswith(f"/blob/main/colabs/{path.name}") and ADDRESS.search(place)


@each
def test_small_pictures_are_stored_and_nothing_else(path):
    cells = [cell for cell in cells_of(path).values() if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert all(output.output_type == "display_data" and set(output.data) == {"image/jpeg"} for output in outputs)
    assert 0 < sum(len(output.data["image/jpeg"]) for output in outputs) < 100_000
    assert all(cell.execution_count is None for cell in cells)


@each
def test_all_install_in_the_same_way(path):
    line = re.compile(r"^EXTRAS, MORE = .*$", re.M)
    cells = cells_of(path)
    assert line.sub("", cells["install"].source) == line.sub("", INSTALL)
    assert next(cell for cell in cells.values() if cell.cell_type == "code").id == "install"


@each
def test_fields_of_forms_are_literals_within_their_range(path):
    text = "\n".join(cell.source for cell in cells_of(path).values())
    fields = re.findall(r"^(\w+) = (.*)  # @param \{(.*)\}$", text, re.M)
    for _, value, kind in fields:
        value, kind = ast.literal_eval(value), dict(re.findall(r'(\w+):"?([\w.]+)"?', kind))
        types = {"string": str, "boolean": bool, "slider": float if "." in str(value) else int}
        assert type(value) is types[kind["type"]]
        assert kind["type"] != "slider" or float(kind["min"]) <= value <= float(kind["max"])
    sliders = {name for name, _, kind in fields if "slider" in kind}
    assert {"t_s", "w", "w_t"} <= sliders or path.stem.startswith("04")  # which sweeps them
    assert len(fields) == text.count("@param")


class Machine:
    """What the first cell can see of a machine; nothing is installed."""

    def __init__(self, monkeypatch, folder, *, driver=None, devices=(), installed=()):
        self.commands = []
        self.driver = driver
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        monkeypatch.setattr(glob, "glob", lambda pattern: [name for name in devices if name.startswith(pattern[:9])])
        spec = lambda name: SimpleNamespace(origin=name) if name in installed else None
        monkeypatch.setattr(importlib.util, "find_spec", spec)
        monkeypatch.setattr(subprocess, "run", self.run)

    def run(self, command, **options):
        if command[0] != "nvidia-smi":
            self.commands.append(command)
        elif self.driver is None:
            raise FileNotFoundError(command[0])
        return SimpleNamespace(stdout=f"{self.driver}\n")

    def install(self, source=None):
        """What pip is asked for."""
        cell = INSTALL if source is None else INSTALL.replace("git+https://github.com/YOUR_ACCOUNT/gen1_jax", source)
        exec(compile(cell, "install", "exec"), {})
        (command,) = self.commands
        assert command[:5] == [sys.executable, "-m", "pip", "install", "--quiet"]
        (target,) = command[5:]
        return target


REPOSITORY = "git+https://example.org/someone/gen1_jax"
MACHINES = {
    "CPU": (dict(), ""),
    "T4, CUDA 12 beside it": (dict(driver="580.82.07", installed=("jax_cuda12_plugin",)), "[cuda12]"),
    "old driver": (dict(driver="550.54.15"), "[cuda12]"),
    "new driver": (dict(driver="580.65.06"), "[cuda]"),
    "TPU v5e": (dict(devices=("/dev/vfio/0",)), "[tpu]"),
    "TPU v4": (dict(devices=("/dev/accel0",)), "[tpu]"),
    "TPU by its library": (dict(installed=("libtpu",)), "[tpu]"),
}


@pytest.mark.parametrize("name", MACHINES)
def test_jax_comes_with_what_the_machine_computes_on(name, tmp_path, monkeypatch):
    machine, extra = MACHINES[name]
    assert Machine(monkeypatch, tmp_path, **machine).install(REPOSITORY) == f"gen1-jax{extra} @ {REPOSITORY}"


def colab(monkeypatch, *uploaded):
    """Colab's module, in which a person uploads these."""
    module, files = ModuleType("google.colab"), SimpleNamespace(upload=lambda: dict.fromkeys(uploaded, b""))
    module.files = files
    monkeypatch.setitem(sys.modules, "google.colab", module)
    monkeypatch.setitem(sys.modules, "google", ModuleType("google"))


WHEEL = "gen1_jax-0.1.0-py3-none-any.whl"


@pytest.mark.parametrize("where", ["given", "lies here", "uploaded"])
def test_a_wheel_is_installed_with_the_extra(where, tmp_path, monkeypatch):
    machine = Machine(monkeypatch, tmp_path, driver="550.1")
    if where == "lies here":
        (tmp_path / WHEEL).touch()
    if where == "uploaded":
        colab(monkeypatch, WHEEL)
    assert machine.install(WHEEL if where == "given" else None) == f"{tmp_path.resolve() / WHEEL}[cuda12]"


@pytest.mark.parametrize("at", ["colabs", ".", ".."])
def test_a_checkout_is_found_from_its_folder_of_notebooks_and_from_above(at, tmp_path, monkeypatch):
    (tmp_path / "gen1_jax" / "gen1_jax").mkdir(parents=True)
    (tmp_path / "gen1_jax" / "gen1_jax" / "__init__.py").touch()
    machine = Machine(monkeypatch, tmp_path / "gen1_jax" / at)
    assert machine.install() == str(tmp_path.resolve() / "gen1_jax")


def test_the_word_that_the_readme_replaces_is_all_that_an_address_lacks(tmp_path, monkeypatch):
    (found,) = re.findall(r"^sed -i 's/(\w+)/your-name-on-github/'", (COLABS / "README.md").read_text(), re.M)
    machine = Machine(monkeypatch, tmp_path)
    exec(compile(INSTALL.replace(found, "alice"), "install", "exec"), {})
    assert machine.commands[0][-1] == "gen1-jax @ git+https://github.com/alice/gen1_jax"


def test_without_an_address_nothing_of_a_strangers_is_installed(tmp_path, monkeypatch):
    machine = Machine(monkeypatch, tmp_path)
    with pytest.raises(RuntimeError, match=r"^SOURCE, above: the address"):
        machine.install()
    colab(monkeypatch)  # nothing is chosen
    with pytest.raises(RuntimeError, match=r"^SOURCE, above: the address"):
        machine.install()
    assert machine.commands == []


def test_what_is_there_stays(tmp_path, monkeypatch):
    machine = Machine(monkeypatch, tmp_path, installed=("gen1_jax", "av"))
    exec(compile(INSTALL, "install", "exec"), {})
    assert machine.commands == []


def own_files(**names):
    """Runs the cell that uploads, with both boxes ticked: its VIDEO and MODEL."""
    cell = cells_of(NOTEBOOKS[0])["own-files"].source.replace("= False  # @param", "= True  # @param")
    names = dict(VIDEO="", MODEL="nano") | names
    exec(compile(cell, "own-files", "exec"), names)
    return names["VIDEO"], names["MODEL"]


def test_an_uploaded_zip_is_unpacked_to_a_model_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with zipfile.ZipFile("mine.zip", "w") as archive:
        for name in ("mine/text/config.json", "mine/config.json", "mine/unet.safetensors", "../../outside.json"):
            archive.writestr(name, "{}")
    colab(monkeypatch, "mine.zip")
    assert own_files() == ("mine.zip", str(Path("own-model", "mine", "mine")))
    assert (tmp_path / "own-model" / "mine" / "mine" / "unet.safetensors").exists()
    assert not list(tmp_path.parent.glob("outside.json"))
    with zipfile.ZipFile("empty.zip", "w"):
        pass
    colab(monkeypatch, "empty.zip")
    with pytest.raises(RuntimeError, match=r"^empty\.zip: no model folder"):
        own_files()


def test_nothing_is_uploaded_outside_colab(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "google.colab", None)
    assert own_files(VIDEO="a.mp4") == ("a.mp4", "nano")
    assert "only Colab uploads" in capsys.readouterr().out


HUB_FILES = {
    "Comfy-Org/stable-diffusion-v1-5-archive/v1-5-pruned-emaonly-fp16.safetensors",
    "Intel/dpt-large/config.json",
    "Intel/dpt-large/model.safetensors",
    "guoyww/animatediff-motion-adapter-v1-5-3/config.json",
    "guoyww/animatediff-motion-adapter-v1-5-3/diffusion_pytorch_model.safetensors",
    "h94/IP-Adapter/models/image_encoder/config.json",
    "h94/IP-Adapter/models/image_encoder/model.safetensors",
    "h94/IP-Adapter/models/ip-adapter-plus_sd15.safetensors",
    "lllyasviel/control_v11f1p_sd15_depth/config.json",
    "lllyasviel/control_v11f1p_sd15_depth/diffusion_pytorch_model.fp16.safetensors",
    "lllyasviel/control_v11p_sd15_canny/config.json",
    "lllyasviel/control_v11p_sd15_canny/diffusion_pytorch_model.fp16.safetensors",
}


def test_all_that_can_be_chosen_is_downloaded_and_named_to_the_import(tmp_path, monkeypatch):
    import huggingface_hub

    asked = []
    download = lambda repository, file, local_dir: asked.append((repository, file, local_dir))
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GEN1_NOTEBOOK_SMALL", raising=False)
    cells = cells_of(NOTEBOOKS[2])
    choices = dict(SIX_STEPS=False, CANNY=True, PICTURES=True, VAE="vae.safetensors", LORA="style.safetensors:0.8")
    files = cells["files"].source
    for name, value in choices.items():
        files, count = re.subn(rf"^{name} = .*  #", f"{name} = {value!r}  #", files, flags=re.M)
        assert count == 1
    names = {}
    exec(compile(files, "files", "exec"), names)
    exec(compile(cells["download"].source, "download", "exec"), names)
    assert {f"{repository}/{file}" for repository, file, _ in asked} == HUB_FILES
    assert all(folder == Path("hub", repository) for repository, _, folder in asked)
    given = _parse(["import", *map(str, names["options"]), "-o", "model"])
    assert (given.vae, given.lora) == (Path("vae.safetensors"), [(Path("style.safetensors"), 0.8)])
    assert [kind for kind, _ in given.controlnet] == ["depth", "canny"]
    assert given.image_encoder == Path("hub/h94/IP-Adapter/models/image_encoder")


@pytest.mark.parametrize(("computes_in", "trains_in"), [("float16", "float32"), ("bfloat16", "bfloat16")])
def test_a_t4_trains_in_float32(computes_in, trains_in, monkeypatch):
    monkeypatch.setattr(hardware, "default_dtype", lambda: jnp.dtype(computes_in))
    names = {}
    exec(compile(cells_of(NOTEBOOKS[1])["numbers"].source, "numbers", "exec"), names)
    assert names["DTYPE"] == trains_in
