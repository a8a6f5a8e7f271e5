import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen1_jax.synthetic import (
    ENVIRONMENT_NAMES,
    LIGHTS,
    MATERIAL_NAMES,
    SHAPE_NAMES,
    SPLITS,
    STYLES,
    caption,
    describe,
    parse,
    sample_content,
    sample_structure,
    vocabulary,
)
from gen1_jax.synthetic.captions import _TABLE

STRUCTURES = [sample_structure(seed) for seed in range(50)]


def test_thousands_of_captions_are_read_back():
    lengths = {"short": 0, "long": 0}
    for seed in range(4000):
        structure = STRUCTURES[seed % len(STRUCTURES)]
        content = sample_content(seed, structure, SPLITS[seed % 3])
        form = ("short", "long")[seed % 2]
        text = caption(content, structure, seed=seed, form=form)
        assert parse(text) == describe(structure, content), text
        lengths[form] += len(text)
    assert lengths["long"] > 1.1 * lengths["short"]


def test_a_description_gives_its_content_back():
    for seed, structure in enumerate(STRUCTURES):
        content = sample_content(seed, structure)
        again = parse(caption(content, structure, seed=seed)).content()
        count = len(structure.names)
        assert again.materials[:count].tolist() == content.materials[:count].tolist()
        assert (again.environment, again.light, again.style) == (content.environment, content.light, content.style)


def test_captions_vary_with_the_seed_and_only_with_it():
    structure, content = STRUCTURES[0], sample_content(0, STRUCTURES[0])
    texts = [caption(content, structure, seed=seed) for seed in range(40)]
    assert len(set(texts)) > 25
    assert texts[3] == caption(content, structure, seed=3)


def test_captions_say_nothing_of_geometry():
    for index, structure in enumerate(STRUCTURES):
        content = sample_content(index, structure)
        moved = sample_structure(1000 + index, shapes=structure.names)
        assert caption(content, structure, seed=9) == caption(content, moved, seed=9)


def test_two_objects_of_one_name_keep_their_order():
    structure = sample_structure(0, shapes=("car", "tree", "car"))
    content = sample_content(4, structure)
    for seed in range(50):
        assert parse(caption(content, structure, seed=seed)) == describe(structure, content)


def test_every_name_has_words_and_no_word_two_meanings():
    names = ((vocabulary.MATERIALS, MATERIAL_NAMES), (vocabulary.SHAPES, SHAPE_NAMES), (vocabulary.STYLES, STYLES))
    for words, listed in (*names, (vocabulary.ENVIRONMENTS, ENVIRONMENT_NAMES), (vocabulary.LIGHTS, LIGHTS)):
        assert tuple(words) == tuple(listed)
    assert len(_TABLE) > 250


@given(st.text(max_size=80))
@settings(max_examples=100, deadline=None)
def test_other_text_is_refused(text):
    with pytest.raises(ValueError, match=r"cannot match|phrases for"):
        parse(text)


def test_incomplete_captions_are_refused():
    for text in ("a golden car at noon, in watercolour", "a car in a meadow at noon, in watercolour"):
        with pytest.raises(ValueError, match=r"cannot match|phrases for"):
            parse(text)
    with pytest.raises(ValueError, match="unknown form"):
        caption(sample_content(0, STRUCTURES[0]), STRUCTURES[0], form="haiku")
