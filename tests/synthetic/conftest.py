"""One tiny render size for all tests, so that each pass compiles once."""

import jax
import pytest

from gen1_jax.synthetic import Clip, render, sample_content, sample_structure


@pytest.fixture(scope="session")
def options():
    """The static arguments of `render` that tests share."""
    return {"frames": 2, "size": 32, "supersample": 1}


@pytest.fixture(scope="session")
def tiny(options):
    """Renders the clip of a seed (or given structure and content) at the tiny size, on the host."""

    def call(seed=0, structure=None, content=None) -> Clip:
        structure = structure or sample_structure(seed)
        content = content or sample_content(seed, structure)
        return jax.device_get(render(structure, content, **options))

    return call
