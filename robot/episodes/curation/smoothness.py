"""How a motion runs: smoothness, detours, pauses, saturation, changes of mind of the gripper.

Pure functions of one episode's arrays. Positions are of whatever moves (a tool in metres, or scaled joint angles), so
every measure here is free of units: smoothness must not depend on how far or how fast somebody moves.
"""

import numpy as np

_FASTEST_HZ = 10.0
"""Motions of an arm that is led by hand have no intent above this; Balasubramanian et al. use the same."""
_LEAST_AMPLITUDE = 0.05
_PADDING = 4
"""Zero padding: the spectrum is sampled 2**4 times finer than the motion alone would have it."""


def speed(positions: np.ndarray, dt_s: float) -> np.ndarray:
    """Length of the difference of successive positions over their time, (T, D) to (T - 1,)."""
    return np.linalg.norm(np.diff(positions, axis=0), axis=1) / dt_s


def spectral_arc_length(speeds: np.ndarray, dt_s: float) -> float:
    """SPARC: minus the length of the curve that the scaled Fourier magnitude of the speed draws; -1.4 or so is smooth.

    - integral_0^w_c sqrt((1 / w_c)^2 + (dV(w) / dw)^2) dw with V(w) = |F(w)| / |F(0)|, where w_c is the greatest
    frequency below 10 Hz (or Nyquist's) at which V still reaches 0.05. Balasubramanian, Melendez-Calderon, Roby-Brami,
    Burdet, "On the analysis of movement smoothness", J. NeuroEngineering and Rehabilitation 12:112, 2015.

    Args:
        speeds: Shape (T,), any unit.
        dt_s: Their period [s].

    Returns:
        At most about -1; NaN where nothing moves or there are fewer than 4 speeds.
    """
    if len(speeds) < 4 or not speeds.sum() > 0:
        return float("nan")
    size = 2 ** (int(np.ceil(np.log2(len(speeds)))) + _PADDING)
    magnitude = np.abs(np.fft.rfft(speeds, size))
    magnitude /= magnitude[0]
    hertz = np.fft.rfftfreq(size, dt_s)
    strong = np.flatnonzero((hertz <= _FASTEST_HZ) & (magnitude >= _LEAST_AMPLITUDE))
    last = max(int(strong[-1]), 1)
    steps = np.diff(magnitude[: last + 1])
    return -float(np.sqrt((1.0 / last) ** 2 + np.square(steps)).sum())


def log_dimensionless_jerk(positions: np.ndarray, dt_s: float) -> float:
    """LDLJ: - ln(T^3 / v_peak^2 * integral |d^2 v / dt^2|^2 dt), of the velocity v and the duration T; high is smooth.

    Hogan, Sternad, "Sensitivity of smoothness measures to movement duration, amplitude, and arrests", J. Motor Behavior
    41(6), 2009; Balasubramanian et al. 2015 (see `spectral_arc_length`). Third differences amplify noise of sensors:
    compare only what was recorded at one rate by one sensor.

    Args:
        positions: Shape (T, D).
        dt_s: Their period [s].

    Returns:
        Minus infinity is never returned: NaN where nothing moves or there are fewer than 5 positions. A minimum-jerk
        motion from rest to rest has -ln(204.8) = -5.32.
    """
    if len(positions) < 5:
        return float("nan")
    jerk = np.diff(positions, 3, axis=0) / dt_s**3
    peak = speed(positions, dt_s).max()
    total = np.square(jerk).sum() * dt_s
    if not (peak > 0 and total > 0):
        return float("nan")
    duration = (len(positions) - 1) * dt_s
    return -float(np.log(duration**3 / peak**2 * total))


def path_length_ratio(positions: np.ndarray) -> float:
    """Length of the path over the sum of the straight lines of its quarters: 1 is direct, more is detours.

    The straight line from first to last alone would punish every task that goes somewhere and returns; quarters (by
    path length) allow for that. NaN where nothing moves.
    """
    lengths = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(positions, axis=0), axis=1))])
    if not lengths[-1] > 0:
        return float("nan")
    at = np.interp(np.linspace(0, lengths[-1], 5), lengths, np.arange(len(lengths)))
    corners = np.stack([np.interp(at, np.arange(len(lengths)), column) for column in positions.T], axis=1)
    straight = np.linalg.norm(np.diff(corners, axis=0), axis=1).sum()
    return float(lengths[-1] / straight) if straight > 0 else float("nan")


def idle_share(speeds: np.ndarray, typical: float, below: float = 0.05) -> float:
    """Share of the time in which the speed is below a share of what is typical of the dataset.

    Args:
        speeds: Shape (T,).
        typical: Of the dataset, e.g. the 90th percentile of all speeds, in the same unit.
        below: The share of `typical`.
    """
    if len(speeds) == 0 or not typical > 0:
        return float("nan")
    return float((speeds < below * typical).mean())


def saturated_share(actions: np.ndarray, low: np.ndarray, high: np.ndarray, without: tuple[int, ...] = ()) -> float:
    """Share of rows in which some element of the action is at its limit: somebody asked for more than there is.

    Args:
        actions: Shape (T, A).
        low: Limits, shape (A,); infinite ones are never reached.
        high: The same.
        without: Elements that are at a limit by design, as a gripper that is either open or closed.

    Returns:
        NaN where no element has finite limits.
    """
    counted = np.isfinite(low) & np.isfinite(high)
    counted[list(without)] = False
    if not counted.any() or len(actions) == 0:
        return float("nan")
    margin = 1e-3 * (high - low)[counted]
    part = actions[:, counted]
    return float(((part <= low[counted] + margin) | (part >= high[counted] - margin)).any(axis=1).mean())


def toggles(command: np.ndarray, low: float, high: float) -> int:
    """How often a gripper was told to change: crossings of the middle of its range, with a tenth of it as hysteresis.

    Args:
        command: Shape (T,).
        low: Least value that the dataset has.
        high: Greatest.
    """
    middle, band = (low + high) / 2, (high - low) / 10
    sides = np.where(command > middle + band, 1, np.where(command < middle - band, -1, 0))
    sides = sides[sides != 0]
    return int((np.diff(sides) != 0).sum())
