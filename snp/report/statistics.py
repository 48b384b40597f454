"""Means and intervals over seeds, for values and for differences paired seed by seed."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.special import stdtrit

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """Mean, standard deviation and t interval of `n` values; NaN where `n` is too small for it."""

    mean: float
    std: float
    low: float
    high: float
    n: int


def estimates(wide: pd.DataFrame, confidence: float = CONFIDENCE) -> pd.DataFrame:
    """Per line over its columns (seeds): mean, standard deviation (n - 1), Student's t interval, count."""
    values = wide.to_numpy(dtype=float)
    n = np.count_nonzero(~np.isnan(values), axis=1)
    mean = np.nansum(values, axis=1) / np.where(n > 0, n, np.nan)
    freedom = np.where(n > 1, n - 1, np.nan)
    std = np.sqrt(np.nansum((values - mean[:, None]) ** 2, axis=1) / freedom)
    half = stdtrit(freedom, (1 + confidence) / 2) * std / np.sqrt(freedom + 1)
    columns = {"mean": mean, "std": std, "low": mean - half, "high": mean + half, "n": n}
    return pd.DataFrame(columns, index=wide.index)


def estimate(values: pd.Series, confidence: float = CONFIDENCE) -> Estimate:
    """The estimate of one series of values over seeds; missing values are left out."""
    (line,) = estimates(pd.DataFrame([values.to_numpy(dtype=float)]), confidence).to_dict("records")
    return Estimate(**line)


def seeds_needed(value: Estimate, bound: float, most: int = 50, confidence: float = CONFIDENCE) -> int | None:
    """How many seeds would tell on which side of `bound` the mean lies, if mean and spread stay; None: above `most`."""
    if value.n < 2:
        return None
    n = np.arange(2, most + 1)
    told = stdtrit(n - 1, (1 + confidence) / 2) * value.std / np.sqrt(n) < abs(value.mean - bound)
    return int(n[told][0]) if told.any() else None


def reach(removed: pd.Series, loss: pd.Series, bound: float) -> float:
    """The largest share removed at a loss of at most `bound`, by straight lines between sizes, from (0, 0) on.

    Args:
        removed: shares in rising order. loss: at each of them.
    """
    x, y = np.r_[0.0, removed], np.r_[0.0, loss]
    inside = int(np.flatnonzero(y <= bound)[-1])
    if inside == len(x) - 1:
        return float(x[-1])
    return float(np.interp(bound, y[inside : inside + 2], x[inside : inside + 2]))


def signed(value: float, decimals: int = 1) -> str:
    """`+0.4` or `-0.4`; what rounds to zero is `+0.0`, never `-0.0`."""
    return f"{round(value, decimals) + 0.0:+.{decimals}f}"


def points(value: Estimate) -> str:
    """A difference in points with its interval, as `-1.2 [-1.9, -0.5]`; empty without values."""
    interval = f" [{signed(value.low)}, {signed(value.high)}]" if value.n > 1 else ""
    return signed(value.mean) + interval if value.n else ""


def share(value: float) -> str:
    """A share as per cent, empty where there is none."""
    return "" if pd.isna(value) else f"{100 * value:.1f}%"
