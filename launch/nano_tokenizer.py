"""Learns nano's vocabulary from captions of synthetic worlds: python launch/nano_tokenizer.py OUTPUT.json"""

import sys
from pathlib import Path

from gen1_jax.pretrained.family import NANO
from gen1_jax.pretrained.tokenizer import train_tokenizer
from gen1_jax.synthetic import caption, sample_content, sample_structure

CAPTIONS = 4000


def main(output: str) -> None:
    """Write a tokenizer.json of as many tokens as nano's text tower has."""
    texts = []
    for seed in range(CAPTIONS):
        structure = sample_structure(seed)
        texts.append(caption(sample_content(seed, structure), structure, seed=seed))
    tokenizer = train_tokenizer(texts, NANO.clip.text.vocab_size)
    Path(output).write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    longest = max(len(tokenizer.encode(text).ids) for text in texts)
    print(f"{tokenizer.get_vocab_size()} tokens; the longest of {CAPTIONS} captions has {longest}")


if __name__ == "__main__":
    main(sys.argv[1])
