"""CLIP's byte-pair tokenizer, from one `tokenizer.json`."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from gen1_jax.pretrained.tensors import FolderError

_START, _END, _WORD_END = "<|startoftext|>", "<|endoftext|>", "</w>"
_WORDS = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class CLIPTokenizer:
    """Texts to token ids of one length, ended and padded by the end-of-text token.

    Args:
        file: a tokenizer.json of the `tokenizers` library.
        length: number of tokens of every text; longer texts are cut.
        eos_token_id: what the text tower takes for the end of a text.

    Raises:
        FolderError: the file is missing, damaged, or made for another model.
    """

    def __init__(self, file: Path, length: int, eos_token_id: int):
        try:
            self._tokenizer = Tokenizer.from_str(file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise FolderError(f"{file.parent} has no {file.name}") from None
        except Exception as error:  # the library raises Exception itself
            raise FolderError(f"{file} is not a tokenizer: {error}") from None
        end = self._tokenizer.token_to_id(_END)
        if end is None or (eos_token_id not in (end, 2)):  # 2: what transformers' oldest CLIP files say
            raise FolderError(f"{file} ends texts with token {end}, but the model expects {eos_token_id}")
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self.length, self._end = length, end

    def __call__(self, texts: Iterable[str]) -> tuple[np.ndarray, np.ndarray]:
        """(ids int32 (B, length), mask bool (B, length), True at a text's own tokens, its end included)."""
        rows = [encoding.ids for encoding in self._tokenizer.encode_batch(list(texts))]
        ids = np.full((len(rows), self.length), self._end, np.int32)
        mask = np.zeros((len(rows), self.length), bool)
        for i, row in enumerate(rows):
            kept = row if len(row) <= self.length else [*row[: self.length - 1], self._end]
            ids[i, : len(kept)] = kept
            mask[i, : len(kept)] = True
        return ids, mask

    def token_count(self, text: str) -> int:
        """Tokens of a text before it is cut, start and end included."""
        return len(self._tokenizer.encode(text).ids)


def train_tokenizer(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """A tokenizer of CLIP's kind (lower case, byte-level byte pairs, word ends) learned from `texts`.

    As in CLIP, the vocabulary holds every byte, every byte that ends a word, the merges, and the two special tokens
    last: no text is unknown to it.
    """
    bytes_alone = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ending = [byte + _WORD_END for byte in bytes_alone]
    learner = _tokenizer(models.BPE(end_of_word_suffix=_WORD_END))
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - 2,
        initial_alphabet=bytes_alone,
        end_of_word_suffix=_WORD_END,
        show_progress=False,
    )
    learner.train_from_iterator(texts, trainer)
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    merges = merges[: vocab_size - 2 - len(bytes_alone) - len(bytes_ending)]

    tokens = [*bytes_alone, *bytes_ending, *map("".join, merges), _START, _END]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    tokenizer = _tokenizer(models.BPE(vocab=vocabulary, merges=merges, end_of_word_suffix=_WORD_END))
    tokenizer.add_special_tokens([_START, _END])
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{_START} $A {_END}", special_tokens=[(token, vocabulary[token]) for token in (_START, _END)]
    )
    return tokenizer


def _tokenizer(model: models.BPE) -> Tokenizer:
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_WORDS), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer
