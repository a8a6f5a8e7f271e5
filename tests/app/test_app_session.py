"""What the page can do, without the page and without Gradio."""

import argparse
import dataclasses
import importlib.util
import itertools
import shlex
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from app_clips import write_clip
from tiny import TINY, save_tiny_model

from gen1_jax.app.command_text import command_text
from gen1_jax.app.session import DEMO_CLIP, AppOptions, EditSession
from gen1_jax.cli import _parse, main
from gen1_jax.commands import app as commands_app
from gen1_jax.commands.edit import settings_of
from gen1_jax.editing.record import read_record
from gen1_jax.editing.request import EditRequest
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.media import Limits, Part, open_video, write_image
from gen1_jax.media.provenance import verify

SETTINGS = EditSettings(structure_blur=2, guidance_scale=5.5, num_inference_steps=3, seed=4)


def frames_of(path):
    with open_video(path) as reader:
        return np.stack([frame.rgb for frame in reader])


def request_of(session, video, settings=SETTINGS, prompt="gold", image=None, frames=4):
    return session.request(str(video), prompt=prompt, image=image, frames=frames, settings=settings)


def final(job):
    return list(job.states())[-1]


def test_the_slider_changes_the_structure_and_estimates_depth_once(session, clip, monkeypatch):
    estimated = []

    def estimate(self, kind, frames, progress):
        estimated.append(len(frames))
        return np.random.default_rng(0).uniform(-1, 1, (*frames.shape[:3], 1)).astype(np.float32)

    monkeypatch.setattr("gen1_jax.editing.structures.StructureReader.estimate", estimate)
    views = [session.structure(str(clip), level, 4) for level in (0, 3, 7, 0)]
    assert estimated == [4]
    assert views[0][1] == "48×32, the first 4 of 5 frames, seen by the model at 20×14"
    pictures = [picture for picture, _ in views]
    width = (pictures[0].shape[1] - 4) // 2
    for one, other in itertools.pairwise(pictures):
        assert (one[:, :width] == other[:, :width]).all()  # the input
        assert (one[:, -width:] != other[:, -width:]).any()
    np.testing.assert_array_equal(pictures[0], pictures[3])
    session.structure(str(clip), 0, 5)
    assert estimated == [4, 5]  # depth is normalised over the frames that are edited


def test_an_edit_is_what_its_command_does(session, clip, tmp_path, monkeypatch):
    request = request_of(session, clip)
    job = session.submit(request, "visitor")
    states = list(job.states())
    assert states[-1].stage == "done", states[-1].message
    text = session.command(request)
    assert shlex.split(text)[:3] == ["gen1", "edit", "my clip.mp4"]
    monkeypatch.chdir(tmp_path)
    assert main([*shlex.split(text)[1:], "--json"]) == 0
    np.testing.assert_array_equal(frames_of("my clip_edit.mp4"), frames_of(states[-1].files.edit))
    assert read_record("my clip_edit.mp4") == read_record(states[-1].files.edit)  # of which it can be made again
    assert frames_of(states[-1].files.edit).shape == (4, 32, 48, 3)
    assert "identifies nobody" in session.signed
    assert verify(states[-1].files.edit).state == verify(states[-1].files.comparison).state == "Valid"
    assert frames_of(states[-1].files.comparison).shape == (4, 14, 3 * 20 + 2 * 4, 3)


def test_running_latents_are_seen_and_nothing_recompiles_for_it(session, clip):
    clip_read = session._clips(clip, Part(frames=4), SETTINGS)
    content = session.pipeline.encode_content("gold", [], SETTINGS)
    frames = clip_read.source.frames
    session.pipeline.sample(content, clip_read.estimated, SETTINGS, frames=frames)  # in one call, watched by nobody
    compiled = session.pipeline.sampler(SETTINGS).advance.jitted._cache_size()
    state = final(session.submit(request_of(session, clip), "visitor"))
    assert state.stage == "done" and state.picture.shape == (14, 20, 3)
    assert (state.picture != frames_of(state.files.comparison)[2][:, -20:]).any()
    assert session.pipeline.sampler(SETTINGS).advance.jitted._cache_size() == compiled


def test_a_picture_gives_the_content(session, clip, tmp_path):
    picture = tmp_path / "content.png"
    write_image(picture, np.random.default_rng(3).integers(0, 256, (40, 30, 3), np.uint8))
    assert session.picture(str(picture)).shape == (40, 30, 3)
    request = request_of(session, clip, prompt=None, image=str(picture))
    assert "--image content.png" in session.command(request)
    assert final(session.submit(request, "visitor")).stage == "done"


def test_cancelling_frees_the_device(session, clip):
    job = session.submit(request_of(session, clip, EditSettings(num_inference_steps=1000)), "one")
    next(state for state in job.states() if state.stage == "sampling")
    waiting = session.submit(request_of(session, clip), "other")
    session.cancel("one")
    assert final(job).stage == "cancelled"
    assert final(waiting).stage == "done"


@pytest.mark.parametrize(
    ("settings", "content", "video"),
    [
        (EditSettings(), {"prompt": "it's a “car” $HOME"}, "a b.mp4"),
        (EditSettings(seed=2**40, guidance_scale=-0.00001), {"prompt": "-x --model y"}, "-o.mp4"),
        (EditSettings(shift_windows=False), {"prompt": "a car"}, "a.mp4"),
        (
            EditSettings(sampler="dpm++", temporal_guidance_scale=1 / 3, num_inference_steps=7, structure_blur=7),
            {"image": "-p.png"},
            "'.mp4",
        ),
    ],
)
def test_the_command_parses_to_the_same_edit(settings, content, video):
    part = dict(frames=3, start=5, stride=2)
    request = EditRequest(video=video, output="o.mp4", settings=settings, model="some model", **part, **content)
    program, *arguments = shlex.split(command_text(request, EditSettings()))
    assert program == "gen1" and ("--no-shift-windows" in arguments) != settings.shift_windows
    args = _parse(arguments)
    assert list(map(Path, args.videos)) == [Path(video)] and args.output == "o.mp4"
    images = [str(path) for path, _ in args.image or []]
    assert (args.prompt, images) == (content.get("prompt"), [content["image"]] if "image" in content else [])
    assert (args.model, args.frames, args.start, args.stride) == ("some model", 3, 5, 2)
    assert settings_of(args) == settings


def test_the_demo_clip_is_named_where_it_lies(session, tmp_path):
    served = tmp_path / "demo.mp4"
    served.write_bytes(DEMO_CLIP.read_bytes())
    assert f" {DEMO_CLIP} " in session.command(request_of(session, served))
    write_clip(served)
    assert " demo.mp4 " in session.command(request_of(session, served))


def test_wrong_files_are_one_line_with_their_own_name(session, clip, broken, tmp_path):
    large = tmp_path / "large.mp4"
    large.write_bytes(bytes(2**20 + 1))
    long = write_clip(tmp_path / "long.mp4", frames=14)
    for path, frames, word in [
        (broken, 4, "not a video"),
        (large, 4, "bytes"),
        (long, 14, "--max-frames"),
        (tmp_path / "gone.mp4", 4, "no such file"),
    ]:
        with pytest.raises(ValueError, match=word) as caught:
            session.structure(str(path), 0, frames)
        assert str(caught.value).startswith(f"{path.name}: ") and "\n" not in str(caught.value)
        state = final(session.submit(request_of(session, path, frames=frames), "visitor"))
        assert state.stage == "failed" and state.message == str(caught.value)
    with pytest.raises(ValueError, match=r"^broken\.mp4: not a picture"):
        session.picture(str(broken))
    assert session.structure(str(long), 0, 12)[1].startswith("48×32, the first 12 of 14 frames")


def test_an_edit_of_a_long_name_has_a_name_that_can_be_written(session, clip, tmp_path):
    long = tmp_path / ("ä" * 125 + ".mp4")
    output = request_of(session, shutil.copy(clip, long)).output
    assert output == "ä" * 100 + "_edit.mp4" and len(output.encode()) < 255


def test_wrong_requests_are_refused(session, clip):
    for change, message in [
        ({"prompt": " "}, "empty"),
        ({"prompt": None}, "either"),
        ({"video": ""}, "choose a clip"),
    ]:
        with pytest.raises(ValueError, match=message):
            request_of(session, **({"video": clip} | change))
    for wrong in ({"max_frames": 0}, {"max_upload_mb": 0}):
        with pytest.raises(ValueError, match="at least 1"):
            AppOptions(**wrong)


def test_old_edits_go_and_in_the_end_everything(tiny_model, clip):
    with EditSession(AppOptions(model=str(tiny_model))) as session:
        assert session.limits == Limits(max_bytes=64 * 2**20, max_frames=64)
        first = session._new_folder()
        for _ in range(7):
            session._new_folder()
        assert first.is_dir()
        session._new_folder()
        assert not first.is_dir() and len(list(session.folder.iterdir())) == 8
        job = session.submit(request_of(session, clip, EditSettings(num_inference_steps=1000)), "visitor")
    assert job.state.stage == "cancelled" and not session.folder.exists()


def test_an_untrained_model_warns():
    with EditSession(AppOptions(model="tiny")) as session:
        assert "no trained weights" in session.models.warning


def test_a_model_that_must_be_trained_first_says_so(tmp_path):
    folder = save_tiny_model(tmp_path / "texts", dataclasses.replace(TINY, learned_content="text"))
    with EditSession(AppOptions(model=str(folder))) as session:
        assert (
            session.models.warning.startswith("texts: its U-Net was trained on")
            and "gen1 train" in session.models.warning
        )


def test_the_defaults_are_those_of_the_model_and_the_command_leaves_them_out(session, clip):
    assert session.defaults.guidance_scale == session.pipeline.config.guidance_scale
    command = session.command(request_of(session, clip, session.defaults))
    assert "--prompt" in command and "--guidance-scale" not in command and "--steps" not in command
    other = dataclasses.replace(session.defaults, guidance_scale=session.defaults.guidance_scale + 1)
    assert "--guidance-scale" in session.command(request_of(session, clip, other))


def test_without_gradio_one_line_says_what_to_install():
    code = (
        "import importlib.util, sys\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name, *rest: None if name == 'gradio' else find(name, *rest)\n"
        "from gen1_jax.cli import main\n"
        "sys.exit(main(['app']))"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr == 'gen1: gen1 app needs gradio: pip install "gen1-jax[app]"\n'


@pytest.mark.parametrize("option", ["--max-frames=0", "--max-upload-mb=0", "--port=0", "--port=70000", "--share"])
def test_wrong_options_are_one_line(option, capsys):
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed")
    try:
        code = main(["app", option])
    except SystemExit as stop:  # argparse
        code = stop.code
    err = capsys.readouterr().err
    assert code == 2 and len(err.splitlines()) == 1 and option.split("=")[0] in err


def test_fast_is_a_model_of_its_own(monkeypatch, capsys):
    pytest.importorskip("gradio")
    assert main(["app", "--fast", "--model", "tiny"]) == 2
    assert "--fast is --model nano-fast, and --model says tiny" in capsys.readouterr().err
    served = []

    def opened(*models):
        served.append(models)
        raise UserError("that is enough")

    monkeypatch.setattr("gen1_jax.app.session.ServedModels.opened", opened)
    for options in ([], ["--fast"], ["--model", "tiny", "--upscaler", "larger"]):
        assert main(["app", *options]) == 2
    assert served == [("nano", "nano-upscaler"), ("nano-fast", "nano-upscaler"), ("tiny", "larger")]


@pytest.mark.parametrize("host", ["127.0.0.1", "0.0.0.0", "localhost"])
def test_a_port_that_is_taken_is_one_line_before_a_model_is_loaded(host, capsys, tmp_path):
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed")
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        assert main(["app", "--host", host, "--port", str(port), "--model", str(tmp_path / "none")]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"gen1: --port {port} is taken: choose another") and len(said.splitlines()) == 1


@pytest.mark.parametrize(
    ("host", "said"), [("192.0.2.1", "not an address of this machine"), ("no such", "not an addr")]
)
def test_a_host_that_is_none_is_one_line(host, said, capsys, tmp_path):
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed")
    assert main(["app", "--host", host, "--model", str(tmp_path / "none")]) == 2
    err = capsys.readouterr().err
    assert said in err and f"--host {host}" in err and len(err.splitlines()) == 1


def test_a_port_that_is_taken_meanwhile_is_one_line():
    class Page:
        def serve(self, host, port):
            raise OSError("Cannot find empty port in range: 7860-7860. You can set GRADIO_SERVER_PORT")

    for port, said in ((7860, "--port 7860 is taken"), (None, "all ports that are tried are taken")):
        with pytest.raises(UserError, match=f"^{said}: choose a free one with --port N$"):
            commands_app._serve(Page(), argparse.Namespace(host="127.0.0.1", port=port))


def test_a_masked_edit_keeps_the_rest_and_is_what_its_command_does(session, clip, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_image(
        "drawn.png", np.where(np.arange(48)[None, :, None] < 24, 255, 0).repeat(32, 0).repeat(3, 2).astype(np.uint8)
    )
    options = dict(prompt=None, image=None, frames=4, settings=SETTINGS, background="gold")
    request = session.request(str(clip), mask=f"{tmp_path}/drawn.png@0", **options)
    assert "--mask drawn.png@0 --background gold" in session.command(request)
    dark, _ = session.structure(str(clip), 2, 4, mask=request.mask)
    plain, _ = session.structure(str(clip), 2, 4)
    width = (plain.shape[1] - 4) // 2
    left, right = slice(0, width // 2 - 2), slice(width // 2 + 2, width)
    assert (dark[:, left] == plain[:, left]).mean() > 0.9 and dark[:, right].mean() < 0.5 * plain[:, right].mean()
    state = final(session.submit(request, "painter"))
    assert state.stage == "done", state.message
    edit, source = (frames_of(path).astype(int) for path in (state.files.edit, clip))
    apart = np.abs(edit - source[:4]).mean((0, 1, 3))
    assert apart[:20].mean() < apart[28:].mean() / 2  # an mp4 is not lossless
    with pytest.raises(UserError, match=r"no such file"):
        session.request(str(clip), mask="gone.png", **options)


def test_what_was_painted():
    pytest.importorskip("gradio")
    from gen1_jax.app.mask_fields import painted

    layer = np.zeros((4, 6, 4), np.uint8)
    assert painted(None) is None and painted({"layers": [layer]}) is None and painted({"layers": []}) is None
    layer[1, 2] = 255
    np.testing.assert_array_equal(painted({"layers": [layer]}) == 255, layer[..., 3] == 255)
