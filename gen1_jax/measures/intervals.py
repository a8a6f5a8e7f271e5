"""How sure the mean of a measure over a few hundred clips is, or the share of raters who prefer one of two."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float

_RESAMPLES, _SEED = 10_000, 0


class Interval(NamedTuple):
    """A mean with its 95% bootstrap interval, in the unit of the measure; NaN where nothing was measured."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4g} [{self.low:.4g}, {self.high:.4g}]"

    @property
    def percent(self) -> str:
        """The same of a share, as "82.8% [78.1%, 87.1%]"."""
        return f"{self.mean:.1%} [{self.low:.1%}, {self.high:.1%}]"


def bootstrap(values: Float[np.ndarray, " n"]) -> Interval:
    """Percentile bootstrap of the mean over clips, with a fixed seed; NaN values are left out.

    The same draws for every set of one size, so that intervals of two methods on the same clips may be compared.

    Source: Efron 1979, https://doi.org/10.1214/aos/1176344552; 10,000 resamples, percentiles 2.5 and 97.5.
    """
    values = np.asarray(values, np.float64)
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(float("nan"), float("nan"), float("nan"))
    chosen = np.random.default_rng(_SEED).integers(len(values), size=(_RESAMPLES, len(values)), dtype=np.int32)
    low, high = np.percentile(values[chosen].mean(1), (2.5, 97.5))
    return Interval(float(values.mean()), float(low), float(high))


def proportion(successes: int, trials: int) -> Interval:
    """A share with its 95% interval of Wilson, which holds near 0 and 1 and of few trials, too; NaN of none.

    Trials count as independent. Source: Wilson 1927, https://doi.org/10.1080/01621459.1927.10502953, by SciPy.
    """
    if not trials:
        return Interval(float("nan"), float("nan"), float("nan"))
    from scipy.stats import binomtest

    interval = binomtest(successes, trials).proportion_ci(0.95, method="wilson")
    return Interval(successes / trials, float(interval.low), float(interval.high))


def sign_test(successes: int, trials: int) -> float:
    """How often a fair coin would be at least as far from half of the trials (exact, both sides); 1 of none."""
    if not trials:
        return 1.0
    from scipy.stats import binomtest

    return float(binomtest(successes, trials).pvalue)
