"""The nodes by ComfyUI's protocol, without ComfyUI: what it reads off them, what it hands in, what it shows."""

import dataclasses
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from tiny import TINY, save_tiny_model

import gen1_jax
from gen1_jax.app.comfyui import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS
from gen1_jax.app.comfyui.install import install
from gen1_jax.app.comfyui.tensors import frames_of, images_like, mask_of
from gen1_jax.cli import main
from gen1_jax.errors import UserError

FRAMES = np.random.default_rng(0).integers(0, 256, (3, 20, 28, 3), np.uint8)
WORKFLOWS = Path(gen1_jax.__file__).parent / "app" / "comfyui" / "example_workflows"
STEPS = 2


class Tensor(np.ndarray):
    """What the nodes ask of a tensor of torch."""

    def cpu(self):
        return self

    def new_tensor(self, data):
        return tensor(data)


def tensor(data):
    return np.asarray(data, np.float32).view(Tensor)


IMAGES = tensor(FRAMES / 255)


def run(name, **inputs):
    """A node as ComfyUI runs it: with all that is required, of the types that it names."""
    node = NODE_CLASS_MAPPINGS[name]
    declared = node.INPUT_TYPES()
    given = {key: spec[1]["default"] for key, spec in declared["required"].items() if "default" in spec[1]} | inputs
    assert declared["required"].keys() <= given.keys()
    assert given.keys() <= declared["required"].keys() | declared.get("optional", {}).keys()
    results = getattr(node(), node.FUNCTION)(**given)
    assert len(results) == len(node.RETURN_TYPES) == len(node.RETURN_NAMES)
    return results


@pytest.fixture(scope="module")
def model(tiny_model):
    return run("Gen1Model", model=str(tiny_model))[0]


def edit(model, **inputs):
    return run("Gen1Edit", **({"model": model, "images": IMAGES, "prompt": "a cat", "steps": STEPS} | inputs))


def test_nodes_are_what_comfyui_reads():
    assert NODE_CLASS_MAPPINGS.keys() == NODE_DISPLAY_NAME_MAPPINGS.keys()
    made = {kind for node in NODE_CLASS_MAPPINGS.values() for kind in node.RETURN_TYPES}
    for node in NODE_CLASS_MAPPINGS.values():
        assert node.CATEGORY == "Gen-1" and node.DESCRIPTION
        for kind, *options in [spec for group in node.INPUT_TYPES().values() for spec in group.values()]:
            assert isinstance(kind, list) or kind in made | {"INT", "FLOAT", "STRING", "BOOLEAN"}
            least, most = options[0].get("min", 0), options[0].get("max", 0)
            assert kind not in ("INT", "FLOAT") or least <= options[0]["default"] <= most


def test_the_edit_is_that_of_the_pipeline(model):
    images, structure = edit(model, seed=3, structure_blur=1, temporal_guidance_scale=1.2)
    expected = model.edit(
        FRAMES, prompt="a cat", seed=3, structure_blur=1, temporal_guidance_scale=1.2, num_inference_steps=STEPS
    )
    np.testing.assert_array_equal(frames_of(images), expected.frames)
    (seen,) = run("Gen1Structure", model=model, images=IMAGES, structure_blur=1)
    np.testing.assert_array_equal(frames_of(seen), frames_of(structure))
    mended = 0 * np.asarray(seen)
    assert np.ptp(edit(model, structure_maps=tensor(mended))[1]) == 0
    picture = edit(model, prompt="", picture=IMAGES[:1])[0]
    np.testing.assert_array_equal(
        frames_of(picture), model.edit(FRAMES, image=FRAMES[0], num_inference_steps=STEPS).frames
    )


def test_a_mask_keeps_the_rest(model):
    left = tensor(np.arange(28)[None] < 14) * np.ones((20, 1), np.float32)
    images, _ = edit(model, mask=left.view(Tensor)[None], mask_feather=0.0)
    np.testing.assert_array_equal(frames_of(images)[:, :, 14:], FRAMES[:, :, 14:])
    assert (frames_of(images)[:, :, :14] != FRAMES[:, :, :14]).mean() > 0.5
    (found,) = run("Gen1Mask", model=model, images=IMAGES, where="near:0.5")
    assert found.shape == FRAMES.shape[:3] and set(np.unique(found)) == {0, 1}
    np.testing.assert_array_equal(mask_of(found, FRAMES), found)


def test_keyframes_are_chained(model):
    (one,) = run("Gen1Keyframe", picture=IMAGES[:1], frame=0)
    (both,) = run("Gen1Keyframe", picture=IMAGES[2:], frame=-1, others=one)
    assert list(one) == [0] and list(both) == [0, -1]
    np.testing.assert_array_equal(both[-1], FRAMES[2])
    with pytest.raises(UserError, match="no input for known frames"):  # of this model; the node shows the line
        edit(model, keyframes=both)


def test_contents_are_chained(model):
    (one,) = run("Gen1Content", prompt="a cat", weight="1..0")
    (both,) = run("Gen1Content", prompt="", picture=IMAGES[:1], weight=" 0..1", others=one)
    images, _ = edit(model, prompt="", contents=both, inverted_noise=True, propagate="2")
    told = [("a cat", (1, 0)), (FRAMES[0], (0, 1))]
    expected = model.edit(FRAMES, contents=told, inverted_noise=True, propagate=(2,), num_inference_steps=STEPS)
    np.testing.assert_array_equal(frames_of(images), expected.frames)
    for wrong, line in (
        (lambda: run("Gen1Content", prompt="a cat", weight="much"), "weight: 'much' is neither a number"),
        (lambda: run("Gen1Content", prompt="a cat", picture=IMAGES[:1]), "either a prompt or an image"),
        (lambda: edit(model, contents=both), "in the place of prompt and image"),
        (
            lambda: edit(model, source_guidance_scale=2.0),
            "source_guidance_scale is for an edit that follows the source",
        ),
    ):
        with pytest.raises(UserError, match=line):  # the node shows the line
            wrong()


def test_a_video_is_enlarged(model, tmp_path):
    upscales = dataclasses.replace(TINY, unet=dataclasses.replace(TINY.unet, structure_kinds=("low_resolution",)))
    (upscaler,) = run("Gen1Model", model=str(save_tiny_model(tmp_path / "upscaler", upscales)))
    (images,) = run("Gen1Upscale", model=upscaler, images=IMAGES, steps=1, noise_level=2, seed=3)
    assert images.shape == (3, 40, 56, 3)
    expected = upscaler.upscale(FRAMES, num_inference_steps=1, noise_level=2, seed=3)
    np.testing.assert_array_equal(frames_of(images), expected.frames)
    with pytest.raises(UserError, match="does not enlarge videos"):
        run("Gen1Upscale", model=model, images=IMAGES)


def test_what_comfyui_is_shown_and_that_it_cancels(model, monkeypatch):
    shown = []

    class Interrupted(Exception):
        pass

    class Bar:
        def __init__(self, total):
            pass

        def update_absolute(self, value, total, preview=None):
            shown.append((value, total, preview))

    def stop_after_two_steps():
        if sum(preview is not None or total == 4 for _, total, preview in shown) >= 2:
            raise Interrupted

    for name, members in (
        ("comfy", {}),
        ("comfy.utils", {"ProgressBar": Bar}),
        ("comfy.model_management", {"throw_exception_if_processing_interrupted": lambda: None}),
    ):
        monkeypatch.setitem(sys.modules, name, module := ModuleType(name))
        vars(module).update(members)
    edit(model, steps=4)
    sampled = [(value, preview) for value, total, preview in shown if total == 4]
    assert [value for value, _ in sampled] == [1, 2, 3, 4] and sampled[-1][1] is None
    form, picture, _ = sampled[0][1]
    assert form == "JPEG" and picture.size == model.config.working_size(20, 28)[::-1]
    shown.clear()
    monkeypatch.setattr(
        sys.modules["comfy.model_management"], "throw_exception_if_processing_interrupted", stop_after_two_steps
    )
    with pytest.raises(Interrupted):
        edit(model, steps=4)
    assert [value for value, total, _ in shown if total == 4] == [1, 2]


def test_tensors():
    np.testing.assert_array_equal(frames_of(images_like(FRAMES, IMAGES)), FRAMES)
    clear = np.concatenate([IMAGES, np.zeros((3, 20, 28, 1))], axis=-1)
    assert not frames_of(tensor(clear)).any()
    with pytest.raises(UserError, match=r"images must be \(B, H, W, 3\), got \(20, 28, 3\)"):
        frames_of(IMAGES[0])
    with pytest.raises(UserError, match="mask is 64 x 64, and the images are 3 x 20 x 28"):
        mask_of(tensor(np.zeros((1, 64, 64))), FRAMES)


def test_installing(tmp_path, capsys):
    (tmp_path / "custom_nodes").mkdir()
    for _ in range(2):
        assert main(["comfyui", "--install", str(tmp_path)]) == 0
    folder = install(tmp_path / "custom_nodes")
    found = {}
    exec((folder / "__init__.py").read_text(), found)
    assert found["NODE_CLASS_MAPPINGS"] is NODE_CLASS_MAPPINGS
    assert {path.name for path in (folder / "example_workflows").iterdir()} == {p.name for p in WORKFLOWS.iterdir()}
    (folder / "__init__.py").write_text("of somebody else")
    assert main(["comfyui", "--install", str(tmp_path)]) == 2
    assert main(["comfyui", "--install", str(tmp_path / "nowhere")]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and "move it away" in lines[0] and "no folder" in lines[1]


def test_workflows_ask_for_what_the_nodes_take():
    """Inputs, and as many values of widgets as there are widgets; a seed has another beside it."""
    (file,) = WORKFLOWS.glob("*.json")
    ours = [node for node in json.loads(file.read_text())["nodes"] if node["type"] in NODE_CLASS_MAPPINGS]
    assert {node["type"] for node in ours} >= {"Gen1Model", "Gen1Mask", "Gen1Edit", "Gen1Upscale"}
    for node in ours:
        specs = {k: v for group in NODE_CLASS_MAPPINGS[node["type"]].INPUT_TYPES().values() for k, v in group.items()}
        assert {each["name"] for each in node["inputs"]} == specs.keys()
        widgets = [k for k, (kind, *_) in specs.items() if isinstance(kind, list) or kind in _WIDGETS]
        assert len(node.get("widgets_values", [])) == len(widgets) + ("seed" in specs)


def test_workflows_are_whole():
    """Each link joins an output and an input of its type, which both know of it."""
    (file,) = WORKFLOWS.glob("*.json")
    workflow = json.loads(file.read_text())
    nodes = {node["id"]: node for node in workflow["nodes"]}
    assert sorted(node["order"] for node in nodes.values()) == list(range(len(nodes)))
    for number, start, output, end, slot, kind in workflow["links"]:
        given, taken = nodes[start]["outputs"][output], nodes[end]["inputs"][slot]
        assert number in given["links"] and number == taken["link"] and given["type"] == taken["type"] == kind
        assert nodes[start]["order"] < nodes[end]["order"]
    linked = [each["link"] for node in nodes.values() for each in node["inputs"] if each["link"] is not None]
    assert sorted(linked) == sorted(number for number, *_ in workflow["links"])


_WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN")
