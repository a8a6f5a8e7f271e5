"""CLIP's byte-pair tokenizer, from one `tokenizer.json`."""

import contextlib
import functools
import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from gen1_jax.models.clip import CLIPTextConfig
from gen1_jax.pretrained.tensors import FolderError, one_line

_START, _END, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
_CLIP_MERGES = Path(__file__).parent / "vocabulary" / "merges.txt.gz"
_REMEMBERED = 1 << 16  # texts; training meets the same captions again and again
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class CLIPTokenizer:
    """Texts to token ids of one length, ended and padded by the end-of-text token.

    Args:
        tokenizer_json: contents of a tokenizer.json of the `tokenizers` library.
        config: of the text tower that reads the tokens; texts are cut at its `max_position_embeddings`.
        source: what the tokenizer is called in an error.

    Attributes:
        length: tokens of every text, padding included.
        start: id of the token before every text.
        end: id of the token after it, which pads it, too.
        marks: the tokens before and after every text.
        json: contents of its tokenizer.json.

    Raises:
        FolderError: it is damaged, or made for another model.
    """

    def __init__(self, tokenizer_json: str, config: CLIPTextConfig, source: str):
        with _as_folder_error(source):
            self._tokenizer = Tokenizer.from_str(tokenizer_json)
            self._tokenizer.no_padding()
            self._tokenizer.no_truncation()
            empty = self._tokenizer.encode("").ids
        end = self._tokenizer.token_to_id(_END)
        if empty != [self._tokenizer.token_to_id(_START), end]:
            raise FolderError(f"{source} does not put {_START} and {_END} around a text")
        largest = max(self._tokenizer.get_vocab(with_added_tokens=True).values())
        if largest >= config.vocab_size:
            raise FolderError(f"{source} has tokens up to {largest}, but the model knows {config.vocab_size}")
        expected = largest if config.eos_token_id == 2 else config.eos_token_id  # see CLIPTextConfig
        if end != expected:
            raise FolderError(f"{source} ends texts with token {end}, but the model expects {expected}")
        self.length, self.start, self.end = config.max_position_embeddings, empty[0], end
        self.marks, self.json = (_START, _END), tokenizer_json
        self._remembered = functools.lru_cache(_REMEMBERED)(self._encode)

    def __call__(self, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids int32 (B, length), mask bool (B, length), True at a text's own tokens, its end included)."""
        rows = [self._remembered(text) for text in texts]
        ids = np.full((len(rows), self.length), self.end, np.int32)
        mask = np.zeros((len(rows), self.length), bool)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = row
            mask[i, : len(row)] = True
        return ids, mask

    def _encode(self, text: str) -> np.ndarray:
        """The text's own tokens, cut at `length`."""
        row = self._tokenizer.encode(_valid(text)).ids
        return np.array(row if len(row) <= self.length else [*row[: self.length - 1], self.end], np.int32)

    def tokens(self, text: str) -> list[int]:
        """Ids of a text's tokens without the marks, however many there are."""
        return self._tokenizer.encode(_valid(text), add_special_tokens=False).ids

    def token_count(self, text: str) -> int:
        """Tokens of a text before it is cut, start and end included."""
        return len(self._tokenizer.encode(_valid(text)).ids)


def read_vocabulary(vocab: Path, merges: Path) -> Tokenizer:
    """CLIP's tokenizer from its vocab.json and merges.txt, as transformers' CLIPTokenizer makes it.

    Raises:
        FolderError: a file is missing or damaged, or the special tokens are not in the vocabulary.
    """
    with _as_folder_error(f"{vocab} with {merges.name}"):
        model = models.BPE.from_file(str(vocab), str(merges), unk_token=_END, end_of_word_suffix=_WORD_END)
    tokenizer = Tokenizer(model)
    if missing := [token for token in (_START, _END) if tokenizer.token_to_id(token) is None]:
        raise FolderError(f"{vocab} has no {missing[0]}")
    return _with_clip_rules(tokenizer)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of CLIP's kind (lower case, byte-level byte pairs, word ends) learned from `texts`.

    As in CLIP, the vocabulary holds every byte, every byte that ends a word, the merges, and the two special tokens
    last: no text is unknown to it.
    """
    bytes_alone = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ending = [byte + _WORD_END for byte in bytes_alone]
    learner = _with_clip_rules(Tokenizer(models.BPE(end_of_word_suffix=_WORD_END)))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        initial_alphabet=bytes_alone,
        special_tokens=bytes_ending,  # in this order: else ties of counts are broken at random
        end_of_word_suffix=_WORD_END,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    return _merging(merges[: vocab_size - 2 - len(bytes_alone) - len(bytes_ending)])


def clip_vocabulary() -> str:
    """The tokenizer.json of CLIP and of Stable Diffusion 1.x: 49,408 tokens, those of its own merges among them."""
    lines = gzip.decompress(_CLIP_MERGES.read_bytes()).decode("utf-8").splitlines()
    return _merging([tuple(line.split()) for line in lines]).to_str()


def _merging(merges: Sequence[tuple[str, ...]]) -> Tokenizer:
    """Whose vocabulary is every byte, every byte that ends a word, what the merges make, and the two marks."""
    bytes_alone = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ending = [byte + _WORD_END for byte in bytes_alone]
    tokens = [*bytes_alone, *bytes_ending, *map("".join, merges), _START, _END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    return _with_clip_rules(Tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=_WORD_END)))


def _with_clip_rules(tokenizer: Tokenizer) -> Tokenizer:
    """What CLIP does to a text before and after byte pairs; the marks around it, if the vocabulary has them."""
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    marks = [(token, tokenizer.token_to_id(token)) for token in (_START, _END)]
    if all(index is not None for _, index in marks):
        tokenizer.add_special_tokens([_START, _END])
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{_START} $A {_END}", special_tokens=marks)
    return tokenizer


def _valid(text: str) -> str:
    """The text without halves of UTF-16 pairs, which a shell may pass and no encoder takes."""
    return text.encode("utf-8", "replace").decode("utf-8")


@contextlib.contextmanager
def _as_folder_error(source: str):
    try:
        yield
    except Exception as error:  # the library raises Exception itself
        raise FolderError(f"{source} is not a tokenizer: {one_line(error)}") from None
