"""Edits whose programs are kept: a process that begins traces nothing, and gives the same bytes."""

import numpy as np
import pytest

from gen1_jax import Gen1Pipeline, kept
from gen1_jax.kept import KeptProgram, keeping


def edit(tiny_model, **settings):
    """Frames and structure of an edit by a pipeline of its own, as in a process of its own."""
    clip = np.random.default_rng(0).integers(0, 256, (3, 20, 28, 3), np.uint8)
    result = Gen1Pipeline.from_pretrained(tiny_model).edit(
        clip, "a golden car", num_inference_steps=3, guidance_interval=(0.4, 1.0), **settings
    )
    return result.frames, result.structure


def test_what_is_kept_edits_as_what_is_compiled(tiny_model, tmp_path, monkeypatch):
    expected, made = edit(tiny_model, sampler="lcm"), []  # which carries a key
    make = KeptProgram._make
    monkeypatch.setattr(KeptProgram, "_make", lambda self, *args: (made.append(self), make(self, *args))[1])
    for traces in (True, False):
        made.clear()
        with keeping(tmp_path, "an edit"):
            for ours, theirs in zip(edit(tiny_model, sampler="lcm"), expected, strict=True):
                np.testing.assert_array_equal(ours, theirs)
        assert bool(made) == traces
    assert len(list(tmp_path.glob("*.program"))) >= 2 * 6  # by source, and by content


def test_other_scales_and_steps_are_the_same_programs(tiny_model, tmp_path, monkeypatch):
    with keeping(tmp_path, "an edit"):
        edit(tiny_model)
    monkeypatch.setattr(kept, "_no_other_cache", lambda: pytest.fail("compiled"))
    monkeypatch.setattr(KeptProgram, "_make", lambda *args: pytest.fail("traced"))
    with keeping(tmp_path, "an edit"):
        edit(tiny_model, seed=3, guidance_scale=2.5, temporal_guidance_scale=1.0, structure_blur=2)
