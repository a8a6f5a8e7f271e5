"""Prints swap benchmarks over bits a frame: python launch/split_table.py swap/*/results.json"""

import json
import sys
from pathlib import Path

from gen1_jax.evaluation.swap import rates

if __name__ == "__main__":
    print(*rates([json.loads(Path(path).read_text()) for path in sys.argv[1:]]), sep="\n")
