"""Every notebook runs from top to bottom with its smallest numbers."""

import re
from pathlib import Path

import jax
import nbformat
import pytest
from nbclient import NotebookClient
from public_hub import write_hub

COLABS = Path(__file__).parents[2] / "colabs"
NOTEBOOKS = sorted(COLABS.glob("*.ipynb"))
PROMISED = {  # pictures it shows, files it leaves
    "01_edit_a_video": (7, ("edit.mp4",)),
    "02_train_your_own_nano": (6, ("worlds", "worlds_latents", "runs/unet/log.jsonl", "my-nano/manifest.json")),
    "03_from_public_checkpoints": (2, ("model/config.json", "model/unet.safetensors", "edit.mp4")),
    "04_evaluate_and_export": (
        4,
        (
            "benchmark/report.html",
            "export-safetensors/unet.safetensors",
            "export-diffusers/unet/config.json",
            "export-torch/modeling_gen1.py",
            "export-stablehlo/guided_sampler.bin",
        ),
    ),
}

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_all_are_there():
    assert [path.stem for path in NOTEBOOKS] == list(PROMISED)


@each
def test_is_small_and_valid(path):
    notebook = nbformat.read(path, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)  # that cells have ids of their own, too
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert path.stat().st_size < 200_000
    assert all(set(cell.metadata) == set() for cell in notebook.cells)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    assert "2302.03011" in text
    links = re.findall(r"\]\((?!https?:)([^)]+)\)", text)
    assert all((COLABS / link).exists() for link in links), links


@each
def test_runs_from_top_to_bottom(path, tiny_model, tmp_path, monkeypatch):
    notebook = nbformat.read(path, as_version=4)
    if path.stem.startswith("03"):
        write_hub(tmp_path / "hub")  # what is there is not downloaded
    monkeypatch.setenv("GEN1_NOTEBOOK_SMALL", "1")
    # The sizes whose programs compile the soonest: a step of training is a third of the U-Net's for the transformer.
    monkeypatch.setenv("GEN1_NOTEBOOK_MODEL", "tiny-dit" if path.stem.startswith("02") else str(tiny_model))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / ".ipython"))
    startup = tmp_path / ".ipython" / "profile_default" / "startup" / "first.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("import gc; gc.set_threshold(50_000, 20, 20)")  # as in conftest.py
    monkeypatch.delenv("MPLBACKEND", raising=False)  # the kernel's own, which puts figures into outputs
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(jax.config.jax_compilation_cache_dir))  # as of conftest.py
    monkeypatch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.2")
    monkeypatch.setenv("JAX_DISABLE_MOST_OPTIMIZATIONS", "1")

    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()

    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    pictures, files = PROMISED[path.stem]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == pictures
    assert [name for name in files if not (tmp_path / name).exists()] == []
