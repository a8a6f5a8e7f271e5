import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gen1_jax.models.clip import CLIPTextConfig
from gen1_jax.pretrained.prompts import _pieces, encode_prompts, weighted
from gen1_jax.pretrained.tokenizer import CLIPTokenizer, clip_vocabulary

START, END, COMMA, CAT, DOG = 49406, 49407, 267, 2368, 1929


@pytest.fixture(scope="module")
def tokenizer():
    return CLIPTokenizer(clip_vocabulary(), CLIPTextConfig(), "clip")


@pytest.mark.parametrize(
    ("prompt", "pieces"),
    [  # the first ones are examples in the documentation of the program whose notation this is
        ("normal text", [("normal text", 1)]),
        ("an (important) word", [("an ", 1), ("important", 1.1), (" word", 1)]),
        ("(unbalanced", [("unbalanced", 1.1)]),
        (r"\(literal\]", [("(literal]", 1)]),
        ("(unnecessary)(parens)", [("unnecessaryparens", 1.1)]),
        (
            "a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
            [
                ("a ", 1),
                ("house", 1.573),
                (" ", 1.1),
                ("on", 1),
                (" a ", 1.1),
                ("hill", 0.55),
                (", sun, ", 1.1),
                ("sky", 1.4641),
                (".", 1.1),
            ],
        ),
        ("[x]", [("x", 1 / 1.1)]),
        ("((x))", [("x", 1.21)]),
        ("(x:-.5) (y : 2. )", [("x", -0.5), (" ", 1), ("y ", 2)]),
        ("smile :) and ] or :1.2)", [("smile :) and ] or :1.2)", 1)]),
        ("(a:b) (x:1.2.3) [y:0.5]", [("a:b", 1.1), (" ", 1), ("x:1.2.3", 1.1), (" ", 1), ("y:0.5", 1 / 1.1)]),
        (r"a\b \\ c", [(r"a\b \ c", 1)]),
        ("a BREAK b", [("a ", 1), (None, 1), (" b", 1)]),
        ("(a BREAK b) BREAKS", [("a ", 1.1), (None, 1.1), (" b", 1.1), (" BREAKS", 1)]),
        ("((x:999999999):999999999)", [("x", 100)]),
        ("", []),
    ],
)
def test_notation(prompt, pieces):
    found = [(piece.text, pytest.approx(piece.weight)) for piece in _pieces(prompt)]
    assert found == pieces


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text("()[]:\\., 09ab\ud800🦊BREAK", max_size=200), min_size=1, max_size=3))
def test_any_prompt_is_read(tokenizer, prompts):
    ids, weights = encode_prompts(tokenizer, prompts)
    assert ids.shape == weights.shape == (len(prompts), ids.shape[1], 77)
    assert (ids[..., 0] == START).all() and (ids[..., -1] == END).all() and np.isfinite(weights).all()


def test_a_plain_prompt_is_what_the_tokenizer_makes_of_it(tokenizer):
    prompts = ["", "a photo of a cat, it's 50% 🦊", "dog " * 75]
    ids, weights = encode_prompts(tokenizer, prompts)
    np.testing.assert_array_equal(ids[:, 0], tokenizer(prompts)[0])
    assert ids.shape == (3, 1, 77) and (weights == 1).all()


def own(ids):
    """The tokens of a chunk between its start and its end."""
    assert ids[0] == START
    return ids[1 : 1 + list(ids[1:]).index(END)].tolist()


def test_long_prompts_are_several_texts(tokenizer):
    ids, weights = encode_prompts(tokenizer, ["dog " * 75 + "(cat:1.5)", "bad", "a BREAK BREAK cat", "cat BREAK"])
    assert ids.shape == (4, 3, 77) and (ids[:, :, 76] == END).all()
    assert [own(row) for row in ids[0]] == [[DOG] * 75, [CAT], []]
    assert (weights != 1).sum() == 1 and weights[0, 1, 1] == 1.5
    assert [len(own(row)) for row in ids[1]] == [1, 0, 0]
    assert [own(row) for row in ids[2]] == [[320], [], [CAT]]
    assert [own(row) for row in ids[3]] == [[CAT], [], []]


@pytest.mark.parametrize(("before", "after"), [(54, 75), (55, 56), (70, 71), (74, 75), (75, 75)])
def test_a_full_chunk_ends_at_a_near_comma(tokenizer, before, after):
    ids, _ = encode_prompts(tokenizer, ["dog " * before + "," + " cat" * (76 - before)])
    assert len(own(ids[0, 0])) == after and ids.shape[1] == 2
    assert own(ids[0, 0]) + own(ids[0, 1]) == [DOG] * before + [COMMA] + [CAT] * (76 - before)


def test_weights_scale_states_and_keep_the_mean_of_a_chunk():
    states = jnp.asarray(np.random.default_rng(0).normal(0.3, 1, (2, 2, 5, 6)), jnp.float32)
    weights = np.ones((2, 2, 5), np.float32)
    weights[0, 1, 2] = 1.7
    tokens = weighted(states, jnp.asarray(weights)).reshape(2, 2, 5, 6)
    plain = np.array([[True, False], [True, True]])
    np.testing.assert_array_equal(tokens[plain], states[plain])
    np.testing.assert_allclose(tokens[0, 1].mean(), states[0, 1].mean(), rtol=1e-5)
    ratio = np.asarray(tokens[0, 1] / states[0, 1])
    np.testing.assert_allclose(ratio[2] / ratio[0], 1.7, rtol=1e-5)
    assert np.ptp(ratio[[0, 1, 3, 4]]) < 1e-5 and ratio[0, 0] != 1
    assert np.isfinite(weighted(jnp.zeros((1, 1, 5, 6)), jnp.asarray(weights[:1, 1:]))).all()
    huge = jnp.full((1, 1, 5, 6), 3e38)  # whose sum is not finite
    np.testing.assert_array_equal(weighted(huge, jnp.ones((1, 1, 5)))[0], huge[0, 0])
