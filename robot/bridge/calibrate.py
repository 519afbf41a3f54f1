"""`armature calibrate latency`: measure how late a robot acts and its cameras see, into one file.

Conventions, as `robot.control.latency` has them. The action latency is the shift of the measured motion against the
commanded path, which reaches every row's waypoint when the row ends. A camera's latency is the shift of what its
pictures show against the measured motion of the tool: their main ways of changing are fitted to where the tool was a
moment before, so that neither a marker nor the camera's place has to be known. The arm's own state is stamped when it
is read, on the clock that commands are on, and has none; what the clocks are uncertain by goes into the residual.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from robot import config
from robot.bridge.client import BridgeClient
from robot.bridge.excitation import AXES, Motion, Recording, excite
from robot.bridge.image_client import ImageClient
from robot.control.alignment import Delay, along_main_axis, delay, principal
from robot.control.latency import STATE, Latency
from robot.errors import BridgeError, ConfigError, unknown_name

ACTION = "action"
KINDS = ("latency",)
SPAN_S = (-0.1, 0.6)
"""Shifts that are looked for [s]."""
LEAST_SCORE = {ACTION: 0.95}
DEGREE = 3
"""Powers of the tool's way that pictures are fitted to: brightness does not change in proportion to it."""
LEAST_PICTURE_SCORE = 0.7
"""Correlations below these do not tell a delay."""
LEAST_M = 0.003
"""The arm has moved if it went this far: a compliant one goes a fifth of what deltas ask for, and that tells enough."""
AGREE_S = 0.005
"""Two runs that differ by more tell of something else than a delay; pictures may by half a period."""
MOST_MISSED = 0.1
"""Share of pictures that may be lost."""


@dataclass(kw_only=True)
class CalibrateConfig:
    """Keys of `configs/calibrate.yaml`.

    Attributes:
        bridge: Address of the bridge's control channel.
        keys: This client's secret file; empty for none.
        axis: Along which the tool moves.
        amplitude_m: How far at most [m].
        duration_s: Of one motion [s].
        runs: Motions that have to agree.
        out: File that is written; a plot of the same name lies beside it.
    """

    bridge: str
    keys: str
    axis: str
    amplitude_m: float
    duration_s: float
    runs: int
    out: str

    def __post_init__(self) -> None:
        if not 2 <= self.runs <= 10:
            raise ConfigError(f"runs is {self.runs}, expected 2 to 10: one alone does not tell how good it is.")
        if not self.out.endswith(".json"):
            raise ConfigError(f"out is {self.out!r}, expected a file that ends in .json.")
        Motion(self.axis, self.amplitude_m, self.duration_s)


@dataclass
class Finding:
    """What the runs say of one delay.

    Attributes:
        delays: One of each run.
        period_s: Of a camera; 0 for the action.
    """

    delays: list[Delay] = field(default_factory=list)
    period_s: float = 0.0

    @property
    def mean_s(self) -> float:
        """The delay."""
        return float(np.mean([one.delay_s for one in self.delays]))

    @property
    def spread_s(self) -> float:
        """By how much the runs differ, at most."""
        return float(np.ptp([one.delay_s for one in self.delays]))

    @property
    def score(self) -> float:
        """The worst of the correlations."""
        return min(one.score for one in self.delays)


def main(arguments: list[str]) -> int:
    """Measure and write; 0 once the file is there. Any doubt is an error and writes nothing."""
    if not arguments or "=" in arguments[0]:
        raise ConfigError(f"Say what to calibrate: `armature calibrate {KINDS[0]}`.")
    if arguments[0] not in KINDS:
        raise unknown_name("calibration", arguments[0], KINDS)
    settings = config.load("calibrate", CalibrateConfig, arguments[1:])
    motion = Motion(settings.axis, settings.amplitude_m, settings.duration_s)
    with BridgeClient(settings.bridge, name="calibrate", keys=settings.keys) as client:
        space = client.schema.arm.environment.action_space
        if space not in AXES:
            raise unknown_name("action space", space, AXES)
        with ImageClient(client) as images:
            client.acquire()
            recordings = _record(client, images, motion, settings.runs)
            client.release()
        findings = _findings(recordings, {name: 1 / stream.fps for name, stream in images.streams.items()})
        uncertainty_s = client.uncertainty_ns / 1e9
        about = _about(settings, client, findings, uncertainty_s)
    require_trustworthy(findings, recordings, motion)
    latency = conclude(findings, uncertainty_s)
    path = Path(settings.out)
    latency.save(path, about)
    print(table(findings, latency, uncertainty_s))
    print(f"{path} holds it; give it to `armature deploy latency={path}`.")
    _plot(path.with_suffix(".png"), findings, recordings[-1])
    return 0


def _record(client: BridgeClient, images: ImageClient, motion: Motion, runs: int) -> list[Recording]:
    recordings = []
    with tqdm(total=round(runs * motion.duration_s), unit="s", desc="calibrate", bar_format=_BAR) as bar:
        for run in range(runs):

            def show(over_s: float, run: int = run) -> None:
                whole = int(run * motion.duration_s + min(over_s, motion.duration_s))
                if whole > bar.n:
                    bar.update(whole - bar.n)

            recordings.append(excite(client, motion, images, show))
        bar.update(bar.total - bar.n)
    return recordings


_BAR = "{l_bar}{bar}| {n_fmt}/{total_fmt} s"


def _findings(recordings: list[Recording], periods_s: dict[str, float]) -> dict[str, Finding]:
    """Delays of the action and of each camera."""
    findings = {ACTION: Finding()} | {name: Finding(period_s=period_s) for name, period_s in periods_s.items()}
    for recording in recordings:
        findings[ACTION].delays.append(_action_delay(recording))
        for name in periods_s:
            findings[name].delays.append(_picture_delay(recording, name))
    return findings


def _action_delay(recording: Recording) -> Delay:
    times, moved = _seconds(recording, recording.state_ns), np.array(recording.moved_m)
    return delay(times, moved, (_seconds(recording, recording.way_ns), recording.way_m), SPAN_S)


def _picture_delay(recording: Recording, name: str) -> Delay:
    taken = recording.picture_ns.get(name, [])
    if len(taken) < 30:
        raise BridgeError(
            f"Camera {name!r} sent {len(taken)} pictures during a motion, too few to tell its delay from. The bridge "
            "says on its standard error what happened to it."
        )
    reference = _seconds(recording, recording.state_ns), along_main_axis(np.array(recording.ee_pos))
    return delay(_seconds(recording, taken), principal(np.array(recording.pictures[name])), reference, SPAN_S, DEGREE)


def _seconds(recording: Recording, times_ns: Any) -> np.ndarray:
    """Times since the beginning of the motion, in which a float64 is exact."""
    return (np.asarray(times_ns, np.int64) - recording.way_ns[0]) / 1e9


def require_trustworthy(findings: dict[str, Finding], recordings: list[Recording], motion: Motion) -> None:
    """Refuse to write down what is not known.

    Raises:
        BridgeError: The arm did not move, a correlation is weak, runs disagree, or pictures were lost.
    """
    way_m = min(float(np.ptp(recording.moved_m)) for recording in recordings)
    asked_m = float(np.ptp(recordings[0].way_m))
    if not way_m >= LEAST_M:
        raise BridgeError(
            f"The arm went {1000 * way_m:.1f} mm of {1000 * asked_m:.1f} mm: too little to tell a delay from. Choose a "
            "larger amplitude_m, or see whether its controller is stiff enough."
        )
    for name, finding in findings.items():
        _require_clear(name, finding)
    for name in findings.keys() - {ACTION}:
        missed = max(recording.missed.get(name, 0) / len(recording.picture_ns[name]) for recording in recordings)
        if missed > MOST_MISSED:
            raise BridgeError(
                f"{missed:.0%} of the pictures of camera {name!r} did not arrive. Choose a lower fps or quality, or a "
                "quieter machine or network."
            )


def _require_clear(name: str, finding: Finding) -> None:
    least = LEAST_SCORE.get(name, LEAST_PICTURE_SCORE)
    if not finding.score >= least:
        what = (
            "The measured motion does not look like the commanded one"
            if name == ACTION
            else f"What camera {name!r} sees does not change with the tool"
        )
        raise BridgeError(
            f"{what}: correlation {finding.score:.2f}, expected {least} or more. Choose a larger amplitude_m or "
            "another axis, and see that nothing else moves and the camera sees the tool."
        )
    if any(not one.is_inside or one.sign < 0 for one in finding.delays):
        raise BridgeError(
            f"The delay of {name!r} is not between {SPAN_S[0]} and {SPAN_S[1]} s, or its motion is the opposite of "
            "what was commanded. Check the directions of axes, and what stamps its times."
        )
    agree_s = max(AGREE_S, finding.period_s / 2)
    if finding.spread_s > agree_s:
        found = ", ".join(f"{1000 * one.delay_s:.1f}" for one in finding.delays)
        raise BridgeError(
            f"The runs disagree about {name!r}: {found} ms, expected within {1000 * agree_s:.1f} ms. Something is late "
            "by chance: a busy machine, a network, an exposure that changes. Mend that first."
        )


def conclude(findings: dict[str, Finding], uncertainty_s: float) -> Latency:
    """The latencies, as a node uses them."""
    cameras = {name: finding.mean_s for name, finding in findings.items() if name != ACTION}
    spread_s = max(finding.spread_s for finding in findings.values())
    # An arm that answers a row at once is a little ahead of a path that ends with the row; nothing is sent late for it.
    action_s = max(0.0, findings[ACTION].mean_s)
    return Latency({STATE: 0.0, **cameras}, action_s, max(spread_s, uncertainty_s))


def table(findings: dict[str, Finding], latency: Latency, uncertainty_s: float) -> str:
    """What was found, a line each."""
    lines = [f"{'latency of':<16} {'ms':>8}   {'correlation':>11}   runs [ms]"]
    for name, finding in findings.items():
        value = latency.action_s if name == ACTION else latency.observation_s[name]
        runs = ", ".join(f"{1000 * one.delay_s:.1f}" for one in finding.delays)
        lines.append(f"{name:<16} {1000 * value:>8.1f}   {finding.score:>11.3f}   {runs}")
    lines.append(f"{STATE:<16} {0.0:>8.1f}   {'':>11}   clocks within {1000 * uncertainty_s:.2f} ms")
    lines.append(f"{'residual':<16} {1000 * latency.residual_s:>8.1f}")
    return "\n".join(lines)


def _about(
    settings: CalibrateConfig, client: BridgeClient, findings: dict[str, Finding], uncertainty_s: float
) -> dict[str, Any]:
    arm = client.schema.arm
    return {
        "robot": arm.robot,
        "model_hash": arm.model_hash,
        "bridge": settings.bridge,
        "date": time.strftime("%Y-%m-%d %H:%M:%S"),
        "axis": settings.axis,
        "amplitude_m": settings.amplitude_m,
        "clock_uncertainty_s": uncertainty_s,
        "correlation": {name: finding.score for name, finding in findings.items()},
        "runs_s": {name: [one.delay_s for one in finding.delays] for name, finding in findings.items()},
    }


def _plot(path: Path, findings: dict[str, Finding], recording: Recording) -> None:
    """Both signals of every delay, as they came and shifted onto each other."""
    try:
        from robot.bridge.calibration_plot import plot
    except ModuleNotFoundError as error:
        print(f"No plot: it needs the Python package {error.name!r} (`pip install matplotlib`).")
        return
    way = _seconds(recording, recording.way_ns), recording.way_m
    states = _seconds(recording, recording.state_ns)
    rows = [(ACTION, findings[ACTION].delays[-1], way, (states, np.array(recording.moved_m)[:, None]))]
    tool = along_main_axis(np.array(recording.ee_pos))
    for name in findings.keys() - {ACTION}:
        seen = principal(np.array(recording.pictures[name]))
        rows.append(
            (name, findings[name].delays[-1], (states, tool), (_seconds(recording, recording.picture_ns[name]), seen))
        )
    plot(path, rows)
    print(f"{path} shows it.")
