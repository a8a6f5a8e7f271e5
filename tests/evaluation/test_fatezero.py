"""FateZero: which words stay, which maps of attention are fused, and that they are."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from gen1_jax.editing.pipeline import Gen1Pipeline
from gen1_jax.editing.settings import EditSettings
from gen1_jax.evaluation.editor import Editor
from gen1_jax.evaluation.methods import Method, methods
from gen1_jax.evaluation.rivals import fatezero, listing
from gen1_jax.evaluation.rivals.fatezero import Fused, Fusion, Seeking, Words
from gen1_jax.evaluation.told import Way
from gen1_jax.evaluation.worlds import Worlds
from gen1_jax.models.attended import own_and_middle
from gen1_jax.models.attention import Attention
from gen1_jax.models.module import Bound, initialise
from gen1_jax.pretrained.folder import open_model
from gen1_jax.pretrained.nano_public import NanoPublic

FRAMES, SIDE, WIDTH, HEADS = 2, 4, 8, 2
PROMPTS = "a photo of a golden car in the snow", "an ink comic of a golden car on Mars"


@pytest.fixture(scope="module")
def editor():
    pipeline = Gen1Pipeline(NanoPublic(open_model("tiny")))
    leaves, tree = jax.tree.flatten(pipeline.unet.params)
    rng = np.random.default_rng(0)
    noisy = [np.asarray(leaf) + rng.normal(0, 0.1, leaf.shape).astype(np.float32) for leaf in leaves]
    pipeline.networks.kept["unet"] = Bound(pipeline.unet.module, jax.tree.unflatten(tree, noisy))
    return Editor(pipeline, Worlds(2, frames=4, height=16, width=16), batch_size=2)


def test_words_that_stay_and_words_that_are_replaced(editor):
    tokenizer = editor.pipeline.tokenizer
    words = Words.of(tokenizer, *([prompt] for prompt in PROMPTS))
    before, after = ([tokenizer.start, *tokenizer.tokens(prompt), tokenizer.end] for prompt in PROMPTS)
    kept = [before[i] for i in range(len(before)) if words.shared[0, i].any()]
    assert kept == [tokenizer.start, *tokenizer.tokens("of a golden car"), tokenizer.end]
    replaced = [before[i] for i in np.flatnonzero(words.replaced[0])]
    assert replaced == [*tokenizer.tokens("a photo"), *tokenizer.tokens("in the snow")]
    for i, j in zip(*np.nonzero(words.shared[0]), strict=True):
        assert i >= len(before) or j >= len(after) or before[i] == after[j]
    assert words.shared.sum(1).max() == words.shared.sum(2).max() == 1


def test_captions_of_inputs_have_the_words_of_the_prompts(editor):
    worlds = editor.worlds
    assert len(worlds.source_prompts) == 2 and worlds.source_prompts != worlds.prompts
    words = Words.of(editor.pipeline.tokenizer, worlds.source_prompts, worlds.prompts)
    assert (words.replaced.sum(1) > 0).all() and (words.shared.sum((1, 2)) > 4).all()


def layer(context: int | None = None) -> Attention:
    module = Attention(WIDTH, HEADS, context_features=context)
    return nnx.merge(nnx.graphdef(module), initialise(module, 0))


def maps(attention: Attention, x, context):
    """Written maps (n heads s k) and values (n heads k d), of one sequence each."""
    query, key, value = (np.asarray(y).swapaxes(1, 2) for y in jax.jit(attention.projected)(x, context))
    scores = query @ key.swapaxes(2, 3) / np.sqrt(WIDTH // HEADS)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    return weights / weights.sum(-1, keepdims=True), value


def out_of(attention: Attention, weights, value):
    return np.asarray(jax.jit(attention.output)((weights @ value).swapaxes(1, 2)))


def test_maps_of_the_input_are_fused_into_those_of_the_edit():
    """Against maps that are written, blended as the paper has it, and multiplied by the edit's values."""
    rng, rows, clips, tokens = np.random.default_rng(0), 3, 2, 5
    draw = lambda *shape: rng.normal(size=shape).astype(np.float32)
    mask = rng.random((clips, FRAMES, SIDE, SIDE)) > 0.5
    shared = np.zeros((clips, tokens, tokens), np.float32)
    shared[:, 0, 0] = shared[:, 2, 1] = shared[:, 3, 4] = 1  # token 2 of the caption is token 1 of the prompt
    x = draw(clips * rows * FRAMES, SIDE**2, WIDTH)
    told = draw(clips * rows, tokens, 6).repeat(FRAMES, axis=0)
    apart = lambda y: y.reshape(clips, rows, FRAMES, *y.shape[1:])
    source, last = (
        (lambda y: apart(y)[:, 0].reshape(-1, *y.shape[1:])),
        (lambda y: apart(y)[:, -1].reshape(-1, *y.shape[1:])),
    )

    own, across = layer(), layer(6)
    seen = own_and_middle(jnp.asarray(x.reshape(clips * rows, FRAMES, SIDE**2, WIDTH)))
    seen = np.asarray(seen).reshape(len(x), -1, WIDTH)
    (of_input, _), (of_edit, value) = (maps(own, of(x), of(seen)) for of in (source, last))
    blended = np.where(mask.reshape(-1, 1, SIDE**2, 1), of_edit, of_input)
    fused = {"self": out_of(own, blended, value)}
    (of_input, _), (of_edit, value) = (maps(across, of(x), of(told)) for of in (source, last))
    blended = of_edit.copy()
    for before, after in ((0, 0), (2, 1), (3, 4)):
        blended[..., after] = of_input[..., before]
    fused["cross"] = out_of(across, blended, value)

    run = lambda function, *args: jax.device_get(jax.jit(function)(*args))
    plain = run(lambda x, seen, told: {"self": own(x, seen), "cross": across(x, told)}, x, seen, told)
    for applies in (True, False):
        how = Fused(rows, Fusion(jnp.asarray(mask), shared, applies))
        out = {
            "self": run(lambda x: how.to_positions(own, x, clips * rows), x),  # noqa: B023
            "cross": run(lambda x, told: how.to_content(across, x, told, clips * rows), x, told),  # noqa: B023
        }
        for name, found in out.items():
            np.testing.assert_allclose(apart(found)[:, :-1], apart(plain[name])[:, :-1], atol=1e-5)
            wanted = fused[name] if applies else last(plain[name])
            np.testing.assert_allclose(last(found), wanted, atol=1e-5)
            assert not applies or np.abs(wanted - last(plain[name])).max() > 1e-2


def test_words_are_found_where_the_input_looks_at_them():
    rng, across = np.random.default_rng(0), layer(6)
    x, told = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((2 * FRAMES, SIDE**2, WIDTH), (2, 5, 6)))
    told = jnp.repeat(told, FRAMES, axis=0)
    seeking = Seeking(own_and_middle, jnp.asarray([[0, 1, 0, 1, 0], [1, 0, 0, 0, 0]], jnp.float32))
    np.testing.assert_allclose(seeking.to_content(across, x, told, 2), across(x, told), atol=1e-6)
    weights, _ = maps(across, x, told)
    weights = weights.mean(1).reshape(2, FRAMES, SIDE**2, 5)
    wanted = np.stack([weights[0, ..., 1] + weights[0, ..., 3], weights[1, ..., 0]])
    np.testing.assert_allclose(seeking.found[0], wanted, atol=1e-5)
    seeking.found[:] = [jnp.zeros((1, 1, 16)).at[0, 0, 5].set(0.9).at[0, 0, 6].set(0.3), jnp.zeros((1, 1, 4))]
    assert np.argwhere(seeking.mask((4, 4))).tolist() == [[0, 0, 1, 1], [0, 0, 1, 2]]
    seeking.found[:] = [jnp.zeros((1, 1, 16))]
    assert not seeking.mask((4, 4)).any()


def test_models_that_read_text_have_its_edits_and_their_cost(editor, monkeypatch):
    settings = EditSettings(num_inference_steps=2).of(editor.pipeline.config)
    known = [Method(*each) for each in listing.text_rivals(settings, editor.pipeline.config)]
    assert [method.name for method in known] == ["FateZero", "FateZero with depth"]
    assert {m.name for m in known} <= {m.name for m in methods(settings, editor.pipeline.config)}
    assert not [m for m in methods(settings, open_model("tiny").config) if m.group.startswith("FateZero")]
    edits = []
    for method in known:
        before = editor.evaluations
        edits.append(method.make(editor))
        assert edits[-1].shape == editor.worlds.clips.source.shape
        assert editor.evaluations - before == 2 + 2 * (1 + 2)  # going down, the input is beside it
    assert (edits[0] != edits[1]).any()
    way, both = Way(settings=settings, sees_structure=False), np.arange(2)
    fused = fatezero.fatezero_edit(editor, way, both)
    monkeypatch.setattr(editor.worlds, "source_prompts", editor.worlds.source_prompts[::-1])
    assert jnp.abs(fatezero.fatezero_edit(editor, way, both) - fused).max() > 1e-3
    monkeypatch.undo()
    monkeypatch.setattr(fatezero, "REPLACED", 0.0)
    assert jnp.abs(fatezero.fatezero_edit(editor, way, both) - fused).max() > 1e-3
