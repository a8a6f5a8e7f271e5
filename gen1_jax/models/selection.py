"""Parameters of a network by their paths: what is trained of it, and what stays.

"motion" ─► the layers between frames        "controls.depth" ─► r"controls.depth", searched in the paths
"""

import re
from collections.abc import Sequence

from gen1_jax.errors import UserError
from gen1_jax.models.module import Params, flatten, unflatten

GROUPS = {
    "motion": r"(^|\.)(motions|temporal|temporal_conv[12])\.",
    "controls": r"^controls\.",
    "image_adapter": r"\.to_[kv]_image\.",
    "spatial": r"^(?!controls\.)(?!(.*\.)?(motions|temporal|temporal_conv[12])\.)(?!.*\.to_[kv]_image\.)",
}
"""Parts of a U-Net by names of their own, each a regular expression that is searched in dotted paths."""


class Selection:
    """Chooses parameters by their dotted paths.

    Args:
        names: of `GROUPS`, or regular expressions that are searched in the paths ("^controls\\.depth\\.", "attn2").

    Raises:
        UserError: one that is no regular expression.
    """

    def __init__(self, names: Sequence[str]):
        self.names = tuple(names)
        self._patterns = [_pattern(name) for name in names]

    def __call__(self, path: str) -> bool:
        """Whether a parameter is chosen."""
        return any(pattern.search(path) for pattern in self._patterns)

    def check(self, params: Params) -> None:
        """Raises a UserError for a name that chooses none of these parameters."""
        for name, pattern in zip(self.names, self._patterns, strict=True):
            if not any(pattern.search(path) for path in flatten(params)):
                raise UserError(f"{name!r} is in no name of a parameter of this network")

    def chosen(self, params: Params) -> Params:
        """Those that are chosen, abstract or not."""
        return unflatten({path: x for path, x in flatten(params).items() if self(path)})

    def others(self, params: Params) -> Params:
        """Those that are not."""
        return unflatten({path: x for path, x in flatten(params).items() if not self(path)})


def together(*parts: Params) -> Params:
    """Parameters of several parts of a network as those of the whole; of the same path the last counts."""
    return unflatten({path: x for part in parts for path, x in flatten(part).items()})


def _pattern(name: str) -> re.Pattern[str]:
    try:
        return re.compile(GROUPS.get(name, name))
    except re.error as error:
        known = ", ".join(GROUPS)
        raise UserError(f"{name!r} is neither one of {known} nor a regular expression ({error})") from None
