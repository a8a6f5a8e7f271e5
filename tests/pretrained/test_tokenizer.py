import json

import numpy as np
import pytest
from hub_files import CAPTIONS, TOKENS
from hypothesis import given, settings
from hypothesis import strategies as st

from gen1_jax.models.clip import CLIPTextConfig
from gen1_jax.pretrained.folder import open_model
from gen1_jax.pretrained.tensors import FolderError
from gen1_jax.pretrained.tokenizer import CLIPTokenizer, clip_vocabulary, read_vocabulary, train_tokenizer

TEXTS = [
    *CAPTIONS,
    "",
    " ",
    "CAPITALS and MiXeD Case, ÉCOLE STRASSE ẞ İstanbul",
    "naïve café — déjà vu… “quoted” ‘single’ ½ ²",
    "e\u0301cole decomposed, ﬁ ligature, Å vs A\u030a",
    "🦊🚗 emoji 👩‍👩‍👧 with joiners 🇫🇷 and flags",
    "日本語の字幕 한국어 العربية हिन्दी ไทย",
    "it's they're we've I'm you'll he'd won't 'tis o'clock 's",
    "1234567890 3.14 1,000,000 50% 2nd x²+y² ٣٤",
    "tabs\tand\nnew\r\nlines   and\u00a0no-break\u3000ideographic\u200bzero",
    "punctuation!!! ??? ... --- (([{<>}])) @#$%^&*_+=|\\/~`",
    "<|endoftext|> inside <|startoftext|> and <|ENDOFTEXT|>",
    "\x00\x01\x7f control \ufeff mark \ufffd",
    "underscore_names and-hyphens e.g. U.S.A.",
]
LONG = "a red cube on a snowy hill " * 40


@pytest.fixture(scope="module")
def vocabulary(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    train_tokenizer(CAPTIONS, TOKENS).model.save(str(folder))
    return folder / "vocab.json", folder / "merges.txt"


@pytest.fixture(scope="module")
def theirs(vocabulary):
    import transformers

    vocab, merges = map(str, vocabulary)
    return transformers.CLIPTokenizer(vocab=vocab, merges=merges)


@pytest.fixture(scope="module")
def ours(vocabulary):
    config = CLIPTextConfig(vocab_size=TOKENS, eos_token_id=TOKENS - 1)
    return CLIPTokenizer(read_vocabulary(*vocabulary).to_str(), config, "tokenizer")


@pytest.fixture(scope="module")
def nano():
    return open_model("nano").tokenizer()


def check_equal(ours, theirs, texts):
    expected = theirs(texts, padding="max_length", truncation=True, max_length=77, return_tensors="np")
    ids, mask = ours(texts)
    for i, text in enumerate(texts):
        np.testing.assert_array_equal(ids[i], expected["input_ids"][i], err_msg=repr(text))
        np.testing.assert_array_equal(mask[i], expected["attention_mask"][i].astype(bool), err_msg=repr(text))


def test_tokens_equal_transformers(ours, theirs):
    check_equal(ours, theirs, [*TEXTS, LONG])


@settings(max_examples=100, deadline=None)
@given(st.lists(st.text(max_size=40), min_size=1, max_size=5))
def test_any_text_equals_transformers(ours, theirs, texts):
    check_equal(ours, theirs, texts)


def test_vocabulary_without_every_byte_equals_transformers(tmp_path):
    import transformers

    tokens = [*"abc", *(f"{c}</w>" for c in "abc"), "ab", "ab</w>", "<|startoftext|>", "<|endoftext|>"]
    (tmp_path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\na b\na b</w>\n")
    vocab, merges = tmp_path / "vocab.json", tmp_path / "merges.txt"
    config = CLIPTextConfig(vocab_size=len(tokens), eos_token_id=len(tokens) - 1)
    ours = CLIPTokenizer(read_vocabulary(vocab, merges).to_str(), config, "tokenizer")
    check_equal(ours, transformers.CLIPTokenizer(vocab=str(vocab), merges=str(merges)), ["abc", "ab zab", "ABÉ cab!"])


def test_clips_own_vocabulary_equals_transformers():
    import transformers

    text = clip_vocabulary()
    model = json.loads(text)["model"]
    assert (len(model["vocab"]), len(model["merges"])) == (49408, 48894)
    ours = CLIPTokenizer(text, CLIPTextConfig(), "clip")
    merges = [tuple(merge) for merge in model["merges"]]
    check_equal(ours, transformers.CLIPTokenizer(vocab=model["vocab"], merges=merges), [*TEXTS, LONG, "ſtraße ² ǆ"])
    cat = [320, 1125, 539, 320, 2368]  # as published
    assert ours.tokens("a photo of a cat") == cat
    assert ours(["A photo of a  cat"])[0][0].tolist() == [49406, *cat] + [49407] * 71


def test_shape_mask_and_padding(ours):
    ids, mask = ours(["", "a", LONG])
    assert ids.shape == mask.shape == (3, 77)
    assert (ids.dtype, mask.dtype) == (np.int32, bool)
    start, end = TOKENS - 2, TOKENS - 1
    assert ids[0].tolist() == [start] + [end] * 76
    assert mask.sum(1).tolist() == [2, 3, 77]
    for row, own in zip(ids, mask, strict=True):
        assert row[0] == start
        assert row[own.sum() - 1] == end
        assert (row[~own] == end).all()
        assert (row[own][1:-1] < start).all()
    assert ours.token_count("") == 2
    assert ours.token_count(LONG) > 77


def test_halves_of_surrogate_pairs_do_not_stop_it(ours):
    ids, mask = ours(["caf\udce9"])
    assert mask[0].sum() == ours.token_count("caf\udce9") > 2


def round_trip(tokenizer, text: str) -> tuple[str, str]:
    """The text after the rules of CLIP (lower case, no space), and what its tokens spell."""
    inner = tokenizer._tokenizer
    tokens = inner.encode(text, add_special_tokens=False).tokens
    spelt = inner.decoder.decode([token.removesuffix("</w>") for token in tokens])
    return inner.normalizer.normalize_str(text).replace(" ", ""), spelt


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=60).filter(lambda text: "<|" not in text))
def test_every_text_is_in_nanos_vocabulary(nano, text):
    expected, spelt = round_trip(nano, text)
    assert spelt == expected
    ids, _ = nano([text])
    assert 0 <= ids.min() <= ids.max() < 1280


def test_nano_spells_captions_and_strange_texts(nano):
    for text in TEXTS:
        if "<|" not in text:
            expected, spelt = round_trip(nano, text)
            assert spelt == expected
    assert nano.length == 77
    assert nano.token_count("a red cube on a snowy hill at dusk") < 14  # words of captions are few tokens each


def test_training_is_deterministic_and_keeps_every_byte():
    one, two = (train_tokenizer(CAPTIONS, TOKENS).to_str() for _ in range(2))
    assert one == two
    vocabulary = json.loads(one)["model"]["vocab"]
    assert sorted(vocabulary.values()) == list(range(TOKENS))
    assert sum(len(token) == 1 for token in vocabulary) == 256
    assert sum(token.endswith("</w>") and len(token) == 5 for token in vocabulary) == 256


def test_the_old_end_of_text_id_means_the_largest(vocabulary):
    text = read_vocabulary(*vocabulary).to_str()
    tokenizer = CLIPTokenizer(text, CLIPTextConfig(vocab_size=TOKENS, eos_token_id=2), "tokenizer")
    assert tokenizer([""])[0][0, 1] == TOKENS - 1
    with pytest.raises(FolderError, match=f"ends texts with token {TOKENS - 1}, but the model expects 7"):
        CLIPTokenizer(text, CLIPTextConfig(vocab_size=TOKENS, eos_token_id=7), "tokenizer")
    with pytest.raises(FolderError, match=f"has tokens up to {TOKENS - 1}, but the model knows 100"):
        CLIPTokenizer(text, CLIPTextConfig(vocab_size=100, eos_token_id=99), "tokenizer")


@pytest.mark.parametrize("lost", ["<|startoftext|>", "<|endoftext|>"])
def test_a_vocabulary_without_the_marks_is_refused(vocabulary, tmp_path, lost):
    tokens = json.loads(vocabulary[0].read_text())
    del tokens[lost]
    (tmp_path / "vocab.json").write_text(json.dumps(tokens))
    with pytest.raises(FolderError, match=r"vocab\.json .*" + lost.strip("<|>")):
        read_vocabulary(tmp_path / "vocab.json", vocabulary[1])
