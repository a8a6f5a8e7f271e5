import pytest


@pytest.fixture(scope="session")
def trainer_of(tmp_path_factory):
    """trainer_of(component, steps of each stage): a `Trainer` by that recipe."""
    from training_runs import RECIPE, STEPS, Trainer, make_latents, save_wide_model

    model = save_wide_model(tmp_path_factory.mktemp("models") / "wide")
    latents = make_latents(tmp_path_factory.mktemp("latents"), model)

    def trainer_of(component, steps=STEPS):
        path = tmp_path_factory.mktemp("recipe") / f"{component}.py"
        path.write_text(RECIPE.format(component=component, model=model, latents=latents, steps=steps))
        return Trainer(path, tmp_path_factory.mktemp("outputs"))

    return trainer_of


@pytest.fixture(scope="session")
def prior(trainer_of):
    """Trains the network that is quickest to train."""
    return trainer_of("prior")


@pytest.fixture(scope="session")
def unbroken(prior, tmp_path_factory):
    """The workdir of a run of the prior that nothing disturbed."""
    return prior.finish(tmp_path_factory.mktemp("unbroken"))
