"""Going on with another recipe: what passes, what has to be allowed, and what the log says of it."""

import dataclasses

import pytest

from gen1_jax.errors import UserError
from gen1_jax.training.config import StageConfig, TrainConfig
from gen1_jax.training.objectives import OBJECTIVES, objective_kind
from gen1_jax.training.recipe import changes, refused

BASE = TrainConfig.from_dict(
    {
        "data": {"image": {"sources": ["a"]}, "video": {"sources": ["b"]}},
        "stages": [{"name": "one", "steps": 10}, {"name": "two", "steps": 10}],
    }
)


def changed(config, step=12, base=BASE):
    return changes(base.to_dict(), config.to_dict(), step)


def with_steps(*steps):
    stages = tuple(StageConfig(name=f"{i}", steps=n) for i, n in enumerate(steps))
    named = [dataclasses.replace(s, name=old.name) for s, old in zip(stages, BASE.stages, strict=False)]
    return dataclasses.replace(BASE, stages=(*named, *stages[len(named) :]))


def test_what_changes_how_but_not_what_passes():
    other = dataclasses.replace(
        BASE, log_every=7, data=dataclasses.replace(BASE.data, on_error="skip", in_memory=True, workers=2)
    )
    assert changed(other) == {}


def test_stages_that_are_not_finished_may_become_longer_and_others_follow():
    assert changed(with_steps(10, 20)) == {}
    assert changed(with_steps(10, 20, 5)) == {}
    assert changed(with_steps(15, 10)).keys() == {"stages.0.steps"}  # finished
    assert changed(with_steps(10, 5)).keys() == {"stages.1.steps"}  # shorter
    cosine = dataclasses.replace(BASE.optimizer, schedule="cosine")
    base, longer = (dataclasses.replace(config, optimizer=cosine) for config in (BASE, with_steps(10, 20)))
    assert changed(longer, base=base).keys() == {"stages.1.steps"}  # the rate depends on the end


def test_the_others_are_named_with_the_option_that_allows_them():
    rate = dataclasses.replace(BASE, optimizer=dataclasses.replace(BASE.optimizer, learning_rate=3e-4, beta1=0.8))
    found = changed(rate)
    assert found.keys() == {"optimizer.beta1", "optimizer.learning_rate"}
    line = refused(found, [])
    assert line.endswith("--allow-change optimizer.beta1 optimizer.learning_rate") and "0.9 there and 0.8 here" in line
    assert refused(found, ["optimizer.beta1"]).endswith("--allow-change optimizer.learning_rate")
    assert refused(found, ["optimizer"]) == "" == refused(found, list(found))


def test_old_recipes_are_read_through_the_defaults_of_new_fields():
    old = BASE.to_dict()
    del old["objective"], old["data"]["structure"]
    assert changes(old, BASE.to_dict(), 12) == {}


def test_objectives_are_chosen_by_name_or_by_component():
    first = {}
    for name, kind in OBJECTIVES.items():
        of_component = dataclasses.replace(BASE, component=kind.component)
        assert objective_kind(of_component) == first.setdefault(kind.component, kind)
        assert objective_kind(dataclasses.replace(of_component, objective=name)) == kind
    with pytest.raises(UserError, match="not one of denoising, consistency, autoencoder"):
        objective_kind(dataclasses.replace(BASE, objective="magic"))
    with pytest.raises(UserError, match="trains the vae, but component is unet"):
        objective_kind(dataclasses.replace(BASE, objective="autoencoder"))
