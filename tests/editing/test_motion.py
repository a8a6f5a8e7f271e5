"""Propagation of x_0 along motion: of patterns whose motion is known, so that what comes of it is, too."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.diffusion import NoiseSchedule
from gen1_jax.diffusion.wrappers import acting_on_x0
from gen1_jax.editing.motion import Motion, agree, estimated_motion, propagated, propagating
from gen1_jax.editing.settings import EditSettings
from gen1_jax.errors import UserError
from gen1_jax.pretrained.family import NANO

RNG = np.random.default_rng(0)
T, H, W, MOVE = 6, 12, 16, (2, -1)  # pixels right and down each frame

_propagated = jax.jit(propagated)


def flows(move=MOVE):
    ahead = np.broadcast_to(np.float32(move), (1, T - 1, H, W, 2))
    return jnp.asarray(ahead), jnp.asarray(-ahead)


@pytest.fixture(scope="module")
def pattern():
    """Latents of a pattern that moves; every place of a frame but those at the border is seen in its neighbours."""
    whole = RNG.normal(size=(H, W, 4))
    return jnp.asarray(
        np.stack([np.roll(whole, (MOVE[1] * t, MOVE[0] * t), (0, 1)) for t in range(T)])[None], jnp.float32
    )


def test_what_moves_as_the_flow_says_stays_as_it_is(pattern):
    np.testing.assert_allclose(_propagated(pattern, *flows()), pattern, atol=1e-6)


def test_noisy_frames_come_to_agree_along_the_flow(pattern):
    noisy = pattern + 0.5 * jnp.asarray(RNG.normal(size=pattern.shape), jnp.float32)
    out = _propagated(noisy, *flows())
    inner = (slice(None), slice(None), slice(5, -5), slice(5, -5))
    error = lambda x: float(jnp.square(x - pattern)[inner].mean())
    along = lambda x: float(jnp.square(x[0, 1:, 2:-2, 4:-4] - x[0, :-1, 3:-1, 2:-6]).mean())
    assert along(pattern) < 1e-9
    assert along(out) < 0.35 * along(noisy) and error(out) < 0.5 * error(noisy)
    against = _propagated(noisy, *flows((-2, 1)))  # the other way frames have nothing to do with each other
    assert error(against) > 0.9 * error(noisy)


def test_where_flows_do_not_lead_back_nothing_changes(pattern):
    ahead, back = flows()
    off = back.at[:, :, :6].add(1.0)  # the upper half
    noisy = pattern + jnp.asarray(RNG.normal(size=pattern.shape), jnp.float32)
    seen = np.asarray(agree(ahead, off) | agree(off, ahead))[0]
    assert not seen[:, :5].any() and seen[:, 8:-1, 3:-3].all()
    out = _propagated(noisy, ahead, off)
    np.testing.assert_array_equal(out[:, :, :5], noisy[:, :, :5])
    assert (np.asarray(out)[:, :, 8:-1, 4:-4] != np.asarray(noisy)[:, :, 8:-1, 4:-4]).any(-1).all()
    np.testing.assert_array_equal(agree(*flows((W, 0))), False)  # out of the picture
    border = np.asarray(agree(*flows()))[0, 0]
    assert not border[0].any() and not border[:, -2:].any() and border[1:, :-2].all()


def test_the_mean_of_two_frames_by_hand():
    x0 = jnp.arange(2.0).reshape(1, 2, 1, 1, 1) * jnp.ones((1, 2, 3, 3, 1))  # 0, then 1; nothing moves
    none = jnp.zeros((1, 1, 3, 3, 2))
    out = np.asarray(_propagated(x0, none, none))
    np.testing.assert_allclose(out[0, 0], 0.5)  # the first takes of the last, and then the last of the first
    np.testing.assert_allclose(out[0, 1], 0.75)


def test_it_acts_on_x0_at_the_chosen_steps_alone(pattern):
    schedule, (ahead, back) = NoiseSchedule(), flows()
    still = jnp.asarray(RNG.normal(size=pattern.shape), jnp.float32)
    act = propagating(Motion(ahead, back, np.array([300, 120], np.int32)))
    denoise = acting_on_x0(lambda x, t: still, schedule, "sample", act)
    at = lambda t: jax.jit(denoise)(pattern, jnp.array([t], jnp.int32))
    np.testing.assert_array_equal(at(301), still)
    np.testing.assert_allclose(at(120), _propagated(still, ahead, back), atol=1e-5)
    assert not np.allclose(at(300), still)


def test_motion_of_frames_is_in_latent_pixels():
    whole = np.kron(RNG.integers(40, 220, (16, 24, 3)), np.ones((4, 4, 1)))
    frames = np.stack([np.roll(whole, 4 * t, 1) for t in range(3)]).astype(np.uint8)
    ahead, back = estimated_motion(frames, 4)
    assert ahead.shape == back.shape == (1, 2, 16, 24, 2) and ahead.dtype == np.float32
    np.testing.assert_allclose(np.median(ahead, (0, 1, 2, 3)), [1, 0], atol=0.1)
    np.testing.assert_allclose(np.median(back, (0, 1, 2, 3)), [-1, 0], atol=0.1)


def test_steps_are_numbers_from_1():
    assert EditSettings(propagate="18, 15,15").propagated_steps == (15, 18) and EditSettings().propagated_steps == ()
    for wrong in ("", "0", "2,x", "3-4", "-1"):
        with pytest.raises(UserError, match=r"propagate is .* as 15,18"):
            EditSettings(propagate=wrong)
    with_known = dataclasses.replace(NANO, unet=dataclasses.replace(NANO.unet, known=True))
    with pytest.raises(UserError, match="propagate: neighbours of keyframes"):
        EditSettings(propagate="3", keyframe_stride=2).of(with_known)
