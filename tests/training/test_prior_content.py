"""Content by way of the prior, in training as in an edit."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny import TINY

from gen1_jax import Gen1Pipeline
from gen1_jax.evaluation.bench_train import random_latents
from gen1_jax.models.module import initialise
from gen1_jax.pretrained.folder import ModelFolder
from gen1_jax.training.denoising import DenoisingConfig, DenoisingObjective
from gen1_jax.training.prior_content import PriorContent

CAPTIONS = ["a golden car", "", "two marble dogs", "a clay tree at night"]


@pytest.fixture(scope="module")
def pipeline(tiny_model):
    return Gen1Pipeline(ModelFolder(tiny_model))


@pytest.fixture(scope="module")
def frozen(pipeline):
    return {"clip": pipeline.clip.params, "prior": pipeline.prior.params}


@pytest.fixture(scope="module")
def steps(pipeline):
    """Of a probability, compiled once."""
    return functools.cache(lambda probability: step_of(pipeline, probability))


def step_of(pipeline, probability):
    return jax.jit(PriorContent(pipeline.config, probability, pipeline.tokenizer, jnp.float32))


def contents(pipeline, frozen, step, order=(0, 1, 2, 3), seed=0):
    """The contents of CAPTIONS in this order; -1 everywhere where they are kept."""
    ids, mask = pipeline.tokenizer([CAPTIONS[i] for i in order])
    keys = jax.random.split(jax.random.key(seed), len(order))[np.array(order)]
    inputs = {"token_ids": jnp.asarray(ids), "text_mask": jnp.asarray(mask)}
    return np.asarray(step(frozen, inputs, keys, jnp.full((len(order), 16), -1.0)))


def test_captioned_examples_get_what_an_edit_by_prompt_has(pipeline, frozen, steps, monkeypatch):
    made = contents(pipeline, frozen, steps(1.0))
    assert (made[1] == -1).all()  # nothing is known without a caption
    zeros = lambda key, shape, *_: jnp.zeros(shape)
    monkeypatch.setattr(jax.random, "normal", zeros)  # both draw their noise in their own way
    still = contents(pipeline, frozen, step_of(pipeline, 1.0))
    ids, mask = pipeline.tokenizer([*CAPTIONS, ""])
    embeddings, states = pipeline.clip.encode_text_tokens(ids)
    text, empty = ([x[part] for x in (embeddings, states, mask)] for part in (slice(-1), slice(-1, None)))
    config = pipeline.config
    noise = jnp.zeros((config.prior_num_inference_steps + 1, 4, 16))
    expected = pipeline.prior.denoise(noise, tuple(text), jnp.float32(config.prior_guidance_scale), tuple(empty))
    np.testing.assert_allclose(still[[0, 2, 3]], np.asarray(expected)[[0, 2, 3]], rtol=1e-4, atol=1e-5)
    assert not np.allclose(still[0], made[0], rtol=1e-3)


def test_examples_do_not_mix(pipeline, frozen, steps):
    order = [2, 0, 3, 1]
    mixed, whole = (contents(pipeline, frozen, steps(1.0), which) for which in (order, range(4)))
    np.testing.assert_allclose(mixed, whole[order], rtol=1e-4, atol=1e-5)


def test_as_often_as_said(pipeline, frozen, steps):
    kept = [(contents(pipeline, frozen, steps(0.5), seed=seed)[[0, 2, 3]] == -1).all(-1) for seed in range(20)]
    assert 15 < np.sum(kept) < 45


def test_the_denoiser_learns_from_it(pipeline, frozen):
    def losses(probability):
        settings = DenoisingConfig(content_dropout=0.0, prior_probability=probability)
        objective = DenoisingObjective(TINY, settings, tokenizer=lambda: pipeline.tokenizer)
        inputs = objective.inputs(batch)
        assert objective.frozen == (("clip", "prior") if probability else ())
        weights = {name: frozen[name] for name in objective.frozen}
        return np.asarray(jax.jit(objective.loss)(params, weights, inputs, keys)[0])

    batch, keys = random_latents(TINY, "video", 2), jax.random.split(jax.random.key(0), 2)
    texts = np.zeros((2, 40), np.uint8)
    texts[0, : len(CAPTIONS[0])] = list(CAPTIONS[0].encode())
    batch = dataclasses.replace(batch, caption=texts)
    params = initialise(TINY.build("unet", np.float32), 0)
    params = jax.tree.map(lambda x: x + 0.01, params)  # layers that begin at zero see nothing
    without, with_prior = losses(0.0), losses(1.0)
    assert without[0] != with_prior[0] and np.isclose(without[1], with_prior[1], rtol=1e-5)


def test_a_family_without_a_prior_cannot(pipeline):
    config = dataclasses.replace(TINY, prior=None)
    with pytest.raises(ValueError, match="needs a model with a prior"):
        DenoisingObjective(config, DenoisingConfig(prior_probability=0.5), tokenizer=lambda: pipeline.tokenizer)
    with pytest.raises(ValueError, match=r"unet.prior_probability is 2.0, not in \[0, 1\]"):
        DenoisingConfig(prior_probability=2.0)
