import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen1_jax.diffusion import PREDICTION_TYPES, Guidance, branch_weights, temporal_guidance, to_x0_and_epsilon

scales = st.floats(-2, 20, width=32)
SHAPE = (2, 3, 4, 4, 4)


def branches(seed=0):
    return tuple(jnp.float32(np.random.default_rng(seed).normal(size=(3, *SHAPE))))


@settings(max_examples=50, deadline=None)
@given(w=scales, w_t=scales)
def test_the_papers_form_equals_weights_that_sum_to_one(w, w_t):
    weights = branch_weights(w, w_t)
    np.testing.assert_allclose(sum(weights), 1, atol=1e-5)
    weighted = sum(weight * branch for weight, branch in zip(weights, branches(), strict=True))
    np.testing.assert_allclose(temporal_guidance(*branches(), w, w_t), weighted, atol=1e-4)


@settings(max_examples=20, deadline=None)
@given(w=scales)
def test_temporal_scale_one_is_classifier_free_guidance(w):
    image, uncond, cond = branches()
    plain = uncond + w * (cond - uncond)
    np.testing.assert_allclose(temporal_guidance(image, uncond, cond, w, 1.0), plain, atol=1e-5)
    assert branch_weights(w, 1.0)[0] == 0


@settings(max_examples=20, deadline=None)
@given(w=scales, w_t=scales)
def test_equal_branches_are_left_alone(w, w_t):
    x = branches()[0]
    np.testing.assert_array_equal(temporal_guidance(x, x, x, w, w_t), x)


def test_both_scales_zero_is_the_image_model():
    image, uncond, cond = branches()
    np.testing.assert_array_equal(temporal_guidance(image, uncond, cond, 0.0, 0.0), image)


def test_the_papers_equation_by_hand():
    image, uncond, cond = (jnp.full((1, 2), value) for value in (1.0, 2.0, 4.0))
    guided = temporal_guidance(image, uncond, cond, 7.5, 1.5)
    np.testing.assert_allclose(guided, 1 + 1.5 * (2 - 1) + 7.5 * (4 - 2))


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_guidance_commutes_with_conversion(prediction_type):
    noisy = branches(seed=1)[0]

    def convert(prediction):
        return to_x0_and_epsilon(prediction_type, prediction, noisy, 0.8, 0.6)[0]

    of_guided = convert(temporal_guidance(*branches(), 7.5, 1.5))
    guided = temporal_guidance(*map(convert, branches()), 7.5, 1.5)
    np.testing.assert_allclose(of_guided, guided, atol=1e-4)


def test_scales_may_differ_by_example_and_be_traced():
    w, w_t = jnp.array([7.5, 1.0]), jnp.array([0.5, 1.5])
    together = jax.jit(temporal_guidance)(*branches(), w, w_t)
    for i in range(2):
        alone = temporal_guidance(*(branch[i : i + 1] for branch in branches()), float(w[i]), float(w_t[i]))
        np.testing.assert_allclose(together[i : i + 1], alone, atol=1e-5)


def test_half_precision_branches_are_combined_in_full():
    halves = [branch.astype(jnp.bfloat16) for branch in branches()]
    exact = temporal_guidance(*(half.astype(jnp.float32) for half in halves), 7.5, 1.5)
    guided = temporal_guidance(*halves, 7.5, 1.5)
    assert guided.dtype == jnp.float32
    np.testing.assert_array_equal(guided, exact)


TERSE = st.sampled_from([0.0, 1.0, 1.5, 2.0])


@settings(max_examples=40, deadline=None)
@given(w=TERSE, w_t=TERSE, w_src=TERSE)
def test_the_chain_with_a_source_is_weights_that_sum_to_one_over_the_branches_that_have_some(w, w_t, w_src):
    weights = branch_weights(w, w_t, w_src)
    assert sum(weights) == 1 and len(weights) == 4
    four = jnp.float32(np.random.default_rng(5).normal(size=(4, *SHAPE)))
    expected = sum(weight * branch for weight, branch in zip(weights, four, strict=True))
    guidance = Guidance.of(w, w_t, w_src)
    assert list(guidance.branches) == [name for name, x in zip(guidance.chain, weights, strict=True) if x]
    known = dict(zip(guidance.chain, four, strict=True))
    np.testing.assert_allclose(guidance.combine([known[name] for name in guidance.branches]), expected, atol=1e-5)


def test_without_a_scale_of_the_source_guidance_is_equation_10():
    guidance = Guidance.of(7.5, 1.5)
    assert guidance.branches == ("image", "null", "content") and guidance.source_guidance_scale is None
    np.testing.assert_array_equal(guidance.combine(list(branches())), temporal_guidance(*branches(), 7.5, 1.5))
    assert Guidance.of(2.0, 1.0, 1.0).branches == ("source", "content")  # as many evaluations as without
    assert Guidance.of(2.0, 1.2, 1.5).of_images().branches == ("null", "source", "content")
