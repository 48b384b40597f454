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
    n, mean, std = wide.count(axis=1), wide.mean(axis=1), wide.std(axis=1, ddof=1)
    half = stdtrit((n - 1).where(n > 1), (1 + confidence) / 2) * std / np.sqrt(n)
    return pd.DataFrame({"mean": mean, "std": std, "low": mean - half, "high": mean + half, "n": n})


def estimate(values: pd.Series, confidence: float = CONFIDENCE) -> Estimate:
    """The estimate of one series of values over seeds; missing values are left out."""
    line = estimates(values.astype(float).to_frame().T, confidence).iloc[0]
    return Estimate(float(line["mean"]), float(line["std"]), float(line.low), float(line.high), int(line.n))


def signed(value: float, decimals: int = 1) -> str:
    """`+0.4` or `-0.4`; what rounds to zero is `+0.0`, never `-0.0`."""
    return f"{round(value, decimals) + 0.0:+.{decimals}f}"


def points(value: Estimate) -> str:
    """A difference in points with its interval, as `-1.2 [-1.9, -0.5]`; empty without values."""
    interval = f" [{signed(value.low)}, {signed(value.high)}]" if value.n > 1 else ""
    return signed(value.mean) + interval if value.n else ""
