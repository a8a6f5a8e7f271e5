"""Worlds whose right answer is known: held out, and moving as their flow says."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from einops import reduce
from PIL import Image

from gen1_jax import synthetic
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.measures import psnr, warp, warp_error


def test_true_answers_follow_the_true_motion_and_others_do_not():
    worlds = Worlds(4, frames=4, height=32, width=32)
    photographs = [i for i, told in enumerate(worlds.descriptions) if told.style == "photograph"]  # no paper, no grain
    assert photographs
    clips = jax.tree.map(lambda x: x[np.array(photographs)], worlds.clips)
    answer = jnp.asarray(clips.answer / 255, jnp.float32)
    error = jax.jit(warp_error)
    true, still = error(answer, clips.flow, clips.ids), error(answer, 0 * clips.flow, clips.ids)
    shuffled = error(answer[:, ::-1], clips.flow, clips.ids)
    assert (true < still).all() and (true < shuffled).all(), (true, still, shuffled)
    first, _ = warp(answer[:, :1].repeat(4, axis=1), jnp.asarray(clips.flow_to_first))
    assert (psnr(first, answer) > psnr(answer[:, :1].repeat(4, axis=1), answer)).all()
    assert np.abs(clips.flow_to_first[:, 0]).max() < 1e-3


def test_what_is_recorded_is_what_is_rendered():
    """The clips that nano's tests edit, at half of their size: photographs, for other styles draw lines of a pixel."""
    picture = np.asarray(Image.open(Path(__file__).parents[1] / "pretrained" / "nano_worlds.png"), np.float32)
    recorded = reduce(picture, "(n h i) (t w j) c -> n t h w c", "mean", h=32, i=2, t=4, j=2)
    worlds = Worlds(3, frames=4, height=32, width=32)
    rendered = np.stack([worlds.clips.source, worlds.clips.answer], 1).reshape(recorded.shape)
    told = [synthetic.describe(structure, content) for structure, *contents in worlds.scenes for content in contents]
    photographs = [i for i, each in enumerate(told) if each.style == "photograph"]
    assert len(photographs) == 3
    differences = np.abs(recorded[photographs, None] - rendered[photographs]).mean((2, 3, 4, 5))
    assert (np.diag(differences) < 3).all() and (differences + 99 * np.eye(3) > 20).all(), differences


def test_worlds_are_held_out_and_the_first_of_more_are_the_same():
    few, more = (Worlds(count, frames=4, height=32, width=32) for count in (1, 2))
    assert few.prompts == more.prompts[:1] and (few.clips.answer == more.clips.answer[:1]).all()
    assert (few.clips.source != few.clips.answer).any()
    for prompt, description in zip(more.prompts, more.descriptions, strict=True):
        assert synthetic.parse(prompt) == description
