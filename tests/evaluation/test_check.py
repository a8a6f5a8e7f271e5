"""`gen1 info --check` tells nano from nano with damaged weights."""

import dataclasses

import numpy as np
import pytest
from tiny import TINY_PUBLIC

from gen1_jax import Gen1Pipeline
from gen1_jax.cli import main
from gen1_jax.errors import UserError
from gen1_jax.evaluation.check import CLIP, FEWEST_DB, Check, check, render
from gen1_jax.media import load_video
from gen1_jax.models.module import flatten, unflatten
from gen1_jax.pretrained.folder import SeededModel, open_model

SIZE = 64  # half of what it was trained at, for the time that it takes


@pytest.fixture(scope="module")
def pipeline():
    source = open_model("nano")
    source.config = dataclasses.replace(source.config, height=SIZE, width=SIZE)
    return Gen1Pipeline(source)


@pytest.fixture(scope="module")
def checked(pipeline):
    """The check of nano with a network's weights changed, by a function of their name and value."""
    frames = load_video(CLIP)

    def run(network="unet", change=lambda name, x: x) -> Check:
        bound = pipeline.network(network)
        before = bound.params
        flat = flatten(before)
        bound.params = unflatten({name: change(name, np.asarray(x)) for name, x in flat.items()})
        found = check(pipeline, frames, None, (500,))
        bound.params = before
        return found

    return run


@pytest.fixture(scope="module")
def good(checked):
    return checked()


def test_nano_is_as_it_should_be(good):
    assert good.suspicious == [] and good.decibels > FEWEST_DB
    told = {finding.name: finding for finding in good.findings}
    assert told["frame by frame"].ratio < 0.3 and told["video"].ratio < 0.9 and told["without depth"].ratio > 1.5
    *table, skipped, last = render(good).splitlines()
    assert last == "nano: ok, all 7 findings are as expected" and skipped == "not checked: prior"
    assert sum(line.endswith("ok") for line in table) == 7


def permuted(*names):
    """Kernels whose names have these, their outputs in another order."""
    rng = np.random.default_rng(0)
    return lambda name, x: (
        rng.permutation(x, axis=-1) if name.endswith("kernel") and any(part in name for part in names) else x
    )


DAMAGE = {
    "all levels": (permuted("blocks", "mid"), {"frame by frame"}),
    "the finest level on the way up": (permuted("up_blocks.2"), {"frame by frame"}),
    "the finest level on the way down": (permuted("down_blocks.0"), {"video"}),
    "layers between frames": (permuted("temporal"), {"video"}),
    "rows of structure": (
        lambda name, x: np.where(np.arange(x.shape[2])[:, None] < 4, x, 0) if name == "conv_in.kernel" else x,
        {"without depth", "depth mirrored"},
    ),
    "cross-attention": (lambda name, x: 0 * x if "spatial.block.attn2.to_out" in name else x, {"without the picture"}),
    "no layers between frames": (
        lambda name, x: 0 * x if "temporal.proj_out" in name or "temporal_conv" in name else x,
        {"video, frames out of order"},
    ),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_seen(checked, good, what):
    change, expected = DAMAGE[what]
    found = checked(change=change)
    assert expected <= set(found.suspicious), found
    assert found.verdict.startswith(f"nano: suspicious, {len(found.suspicious)} of 7 findings are not as expected: ")
    assert {finding.name for finding in found.findings} == {finding.name for finding in good.findings}


def test_a_damaged_autoencoder_is_seen(checked):
    assert "autoencoder" in checked("vae", permuted("decoder.up_blocks.0")).suspicious


def test_a_model_of_pictures_without_structure_is_asked_the_rest():
    unet = dataclasses.replace(TINY_PUBLIC.unet, temporal="none", controls=())
    config = dataclasses.replace(TINY_PUBLIC, unet=unet, depth=None)
    pipeline = Gen1Pipeline(SeededModel(config, 0, "bare", open_model("nano").path))
    found = check(pipeline, load_video(CLIP)[:2], "a car", (500,))
    assert [finding.name for finding in found.findings] == ["frame by frame", "without the prompt"]
    assert found.skipped == () and "frame by frame" in found.suspicious
    with pytest.raises(UserError, match="bare needs a prompt"):
        check(pipeline, load_video(CLIP)[:2], None)


def test_what_the_check_is_for_comes_with_it(capsys):
    assert main(["info", "nano", "--prompt", "a car"]) == 2
    assert "--clip and --prompt are for --check" in capsys.readouterr().err
