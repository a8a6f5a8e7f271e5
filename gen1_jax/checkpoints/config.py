"""What is kept of a run; apart from the store, whose library takes seconds to import."""

import dataclasses

from gen1_jax.errors import UserError


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """What is kept of a run.

    Attributes:
        every: steps between checkpoints; the end of a stage has one too.
        keep: how many of the last are kept.
        keep_every: further ones that stay: those of steps divisible by this; None for none.
    """

    every: int = 1000
    keep: int = 3
    keep_every: int | None = None

    def __post_init__(self):
        if min(self.every, self.keep, 1 if self.keep_every is None else self.keep_every) < 1:
            raise UserError(f"checkpoint.every, keep and keep_every must be at least 1: {self}")
