"""How sure a success rate is."""

import math
from collections.abc import Sequence
from typing import Any

Z_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution."""


def wilson(count: int, total: int, z: float = Z_95) -> tuple[float, float]:
    """Wilson's score interval for `count` successes in `total` > 0 trials (Wilson 1927)."""
    rate = count / total
    centre = (rate + z * z / (2 * total)) / (1 + z * z / total)
    half = z / (1 + z * z / total) * math.sqrt(rate * (1 - rate) / total + z * z / (4 * total * total))
    return max(0.0, centre - half), min(1.0, centre + half)


def summary(successes: Sequence[bool]) -> dict[str, Any]:
    """Count, rate and 95 % interval, as result files hold them."""
    count = sum(map(bool, successes))
    return {
        "count": count,
        "rate": count / len(successes),
        "wilson_95": list(wilson(count, len(successes))),
    }
