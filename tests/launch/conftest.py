import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))


@pytest.fixture(scope="session")
def recipe(tmp_path_factory):
    """The recipe file of the network that is quickest to train."""
    from training_runs import RECIPE, make_latents, save_wide_model

    model = save_wide_model(tmp_path_factory.mktemp("models") / "wide")
    latents = make_latents(tmp_path_factory.mktemp("latents"), model)
    path = tmp_path_factory.mktemp("recipe") / "prior.py"
    path.write_text(RECIPE.format(component="prior", model=model, latents=latents, steps=8))
    return path
