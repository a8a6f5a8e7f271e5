"""Edits of clips that are not held: stopped and gone on with, of one depth scale, and nothing left beside them."""

import numpy as np
import pytest

from gen1_jax import Gen1Pipeline
from gen1_jax.editing import files, long
from gen1_jax.editing.files import edit_file
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.editing.work import work_folder
from gen1_jax.errors import UserError
from gen1_jax.media.clips import load_video, save_video

FRAMES = 19


class Stopped(BaseException):
    """As KeyboardInterrupt is."""


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    return Gen1Pipeline.from_pretrained(tiny_model)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "clip.mkv"
    fading = np.linspace(1, 0.3, FRAMES)[:, None, None, None]
    noise = np.random.default_rng(0).integers(0, 256, (FRAMES, 16, 16, 3))
    save_video((noise * fading).astype(np.uint8), path, 8)
    return path


@pytest.fixture
def run(pipeline, video, tmp_path, monkeypatch):
    """run(name, progress=None, longest=10, **request): the edited frames."""
    monkeypatch.setattr(long, "SECONDS", 0.0)

    def run(name, progress=lambda *_: None, longest=10, **more):
        monkeypatch.setattr(files, "LONGEST", longest)
        given = dict(prompt="a cat", settings=EditSettings(num_inference_steps=3, seed=2, **more.pop("settings", {})))
        edit_file(EditRequest(video=video, output=tmp_path / name, **given | more), progress, pipeline)
        return load_video(tmp_path / name)

    return run


def stopping(after):
    def progress(stage, done, total):
        if stage == "sampling" and done >= after:
            raise Stopped

    return progress


def test_a_stopped_edit_goes_on_where_it_was(run, tmp_path, monkeypatch):
    rounds = []
    whole = run("whole.mkv", lambda *stage: rounds.append(stage), settings={"strength": 0.7})
    assert len(whole) == FRAMES and not work_folder(tmp_path / "whole.mkv").exists()
    with pytest.raises(Stopped), pytest.warns(UserWarning, match=r"frames are sampled; the same command goes on"):
        run("again.mkv", stopping(12), settings={"strength": 0.7})
    work = work_folder(tmp_path / "again.mkv")
    assert not (tmp_path / "again.mkv").exists() and (work / "latents.f32").stat().st_size
    with (work / "latents.f32").open("ab") as file:  # as of a process that was killed before it told of them
        file.write(b"killed")
    told = []
    again = run("again.mkv", lambda *stage: told.append(stage), settings={"strength": 0.7})
    np.testing.assert_array_equal(again, whole)
    assert "depth" not in {stage for stage, *_ in told} and not work.exists()
    first = next(done for stage, done, _ in told if stage == "sampling")
    # what was kept were the rounds before
    assert first == next(done for stage, done, _ in rounds if stage == "sampling" and done >= 12)


def test_another_request_begins_anew(run, tmp_path):
    with pytest.raises(Stopped), pytest.warns(UserWarning, match="go"):
        run("out.mkv", stopping(9))
    told = []
    run("out.mkv", lambda *stage: told.append(stage), prompt="a dog")
    assert min(done for stage, done, _ in told if stage == "sampling") < 9
    assert next(stage for stage, *_ in told if stage in ("depth", "sampling")) == "depth"


def test_wrong_input_leaves_no_work(run, video, tmp_path):
    with pytest.raises(UserError, match="are in colours"):
        run("out.mkv", structure_from=((None, video),))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("quantiles", [(0.0, 1.0), (0.1, 0.8)])
def test_a_long_clip_has_the_structure_of_one_that_is_held(run, pipeline, tmp_path, monkeypatch, quantiles):
    """One scale for all of it: what fades would else be as near at its end as in its beginning."""
    object.__setattr__(pipeline.config, "depth_quantiles", quantiles)
    try:
        seen = {}
        for longest in (10, 100):
            name = f"{tmp_path}/maps{longest}/"  # PNG files
            run(f"{longest}.mkv", longest=longest, save_structure=name, compare=True)
            seen[longest] = load_video(name).astype(int)
    finally:
        object.__setattr__(pipeline.config, "depth_quantiles", (0.0, 1.0))
    assert seen[10].std() > 5 and np.abs(seen[10] - seen[100]).max() <= 1
