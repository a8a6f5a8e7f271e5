import collections

import numpy as np
import pytest

from gen1_jax.synthetic import (
    ENVIRONMENT_NAMES,
    LIGHTS,
    MATERIAL_NAMES,
    SPLITS,
    STYLES,
    clip_seed,
    make_content,
    sample_content,
    sample_structure,
    split_of,
)

STRUCTURES = [sample_structure(seed) for seed in range(20)]


def _triples(content, structure):
    return {(int(m), int(content.environment), int(content.style)) for m in content.materials[: len(structure.names)]}


def test_the_lists_are_as_long_as_promised():
    assert len(MATERIAL_NAMES) >= 24 and len(ENVIRONMENT_NAMES) >= 14 and len(STYLES) >= 8 and len(LIGHTS) >= 4


def test_no_combination_of_material_environment_and_style_is_in_two_splits():
    seen = collections.defaultdict(set)
    for split in SPLITS:
        for index in range(1500):
            structure = STRUCTURES[index % len(STRUCTURES)]
            seen[split] |= _triples(sample_content(clip_seed(split, index), structure, split), structure)
    assert not seen["train"] & seen["validation"] and not seen["train"] & seen["test"]
    assert not seen["validation"] & seen["test"]
    for split, triples in seen.items():
        assert all(split_of(*triple) == split for triple in triples)
        # Each split alone shows every material, environment and style: only their combinations are new.
        for axis, names in enumerate((MATERIAL_NAMES, ENVIRONMENT_NAMES, STYLES)):
            assert {triple[axis] for triple in triples} == set(range(len(names)))


def test_the_split_of_a_combination_never_changes():
    assert [split_of(i, 2 * i % 16, i % 12) for i in range(12)] == ["train"] * 5 + ["test"] + ["train"] * 4 + [
        "test",
        "train",
    ]
    shares = collections.Counter(
        split_of(m, e, s)
        for m in range(len(MATERIAL_NAMES))
        for e in range(len(ENVIRONMENT_NAMES))
        for s in range(len(STYLES))
    )
    total = sum(shares.values())
    assert 0.07 < shares["validation"] / total < 0.13 and 0.07 < shares["test"] / total < 0.13


def test_seeds_of_splits_and_data_sets_are_disjoint():
    seeds = [clip_seed(split, index, seed) for split in SPLITS for index in (0, 1, 2**30 - 1) for seed in (0, 1, 7)]
    assert len(set(seeds)) == len(seeds)
    with pytest.raises(ValueError, match="unknown split"):
        clip_seed("dev", 0)
    for index, seed in ((-1, 0), (2**30, 0), (0, -1)):
        with pytest.raises(ValueError, match="must lie"):
            clip_seed("train", index, seed)


def test_lights_appear_and_contents_are_deterministic():
    contents = [sample_content(seed, STRUCTURES[0]) for seed in range(200)]
    assert {int(c.light) for c in contents} == set(range(len(LIGHTS)))
    np.testing.assert_array_equal(contents[3].materials, sample_content(3, STRUCTURES[0]).materials)
    with pytest.raises(ValueError, match="unknown split"):
        sample_content(0, STRUCTURES[0], "dev")


def test_objects_of_a_clip_differ_in_material():
    for structure in STRUCTURES:
        content = sample_content(1, structure)
        count = len(structure.names)
        assert len(set(content.materials[:count].tolist())) == count


def test_unknown_names_are_refused():
    for wrong in (
        (("tofu",), "meadow", "noon", "clay"),
        (("gold",), "attic", "noon", "clay"),
        ((), "meadow", "noon", "clay"),
    ):
        with pytest.raises(ValueError, match=r"unknown|materials"):
            make_content(*wrong)
