"""Edits whose programs are kept: a process that begins traces nothing, and gives the same bytes."""

import numpy as np
import pytest

from gen1_jax import Gen1Pipeline, kept
from gen1_jax.kept import KeptProgram, keeping


def edit(tiny_model, **settings):
    """Frames and structure of an edit by a pipeline of its own, as in a process of its own; its sampler has a key."""
    clip = np.random.default_rng(0).integers(0, 256, (3, 20, 28, 3), np.uint8)
    result = Gen1Pipeline.from_pretrained(tiny_model).edit(
        clip, "a golden car", num_inference_steps=3, guidance_interval=(0.4, 1.0), sampler="lcm", **settings
    )
    return result.frames, result.structure


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("programs")


def test_what_is_kept_edits_as_what_is_compiled(tiny_model, folder, monkeypatch):
    expected, made = edit(tiny_model), []
    make = KeptProgram._make
    monkeypatch.setattr(KeptProgram, "_make", lambda self, *args: (made.append(self), make(self, *args))[1])
    for traces in (True, False):
        made.clear()
        with keeping(folder, "an edit"):
            for ours, theirs in zip(edit(tiny_model), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
        assert bool(made) == traces
    assert len(list(folder.glob("*.program"))) >= 2 * 6  # by source, and by content


def test_other_scales_and_steps_are_the_same_programs(tiny_model, folder, monkeypatch):
    with keeping(folder, "an edit"):
        edit(tiny_model)
    monkeypatch.setattr(kept, "_no_other_cache", lambda: pytest.fail("compiled"))
    monkeypatch.setattr(KeptProgram, "_make", lambda *args: pytest.fail("traced"))
    with keeping(folder, "an edit"):
        edit(tiny_model, seed=3, guidance_scale=2.5, temporal_guidance_scale=1.0, structure_blur=2)
