"""Engines of cuDNN that XLA need not try: it times every one of them for each convolution before it chooses."""

import os
from pathlib import Path

_ERRATA = "CUDNN_ERRATA_JSON_FILE"  # https://github.com/NVIDIA/cudnn-frontend, "Errata filter"


def skip_slow_engines() -> None:
    """Leaves out what `slow_engines.json` names; before the process compiles its first convolution, after which cuDNN's
    frontend does not look again.

    They are two of the nine engines of the gradients of kernels. On an H200 (cuDNN 9.19, bfloat16, convolutions of the
    full size) one took 575 to 864 times as long as the best engine, the other 30 to 33 times, and it is tried two or
    three times. A file that the surroundings name already stays.
    """
    os.environ.setdefault(_ERRATA, str(Path(__file__).with_name("slow_engines.json")))
