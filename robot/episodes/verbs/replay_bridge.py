"""An episode's actions, sent again to the arm behind a bridge, at their times and inside its limits."""

import time
from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from robot.bridge.client import BridgeClient, BridgeState
from robot.bridge.schema import STANDSTILL_RADPS, Mode
from robot.contract import ActionChunk
from robot.control.plan import MAX_ROWS
from robot.control.safety import Fault
from robot.episodes.episode import STEPS, Episode, action_topic, is_picture, topic_of
from robot.episodes.verbs.comparing import Largest, Outcome, largest, resampled
from robot.errors import BridgeError, SafetyError

LEAD_S = 0.15
"""How long before its first row a chunk is sent."""
PIECE_S = 0.25
"""Longest chunk: what plays on, at most, if this process dies."""
DRIFT = 0.1
"""Rows whose times are off a grid by less than this part of a period are sent in one chunk."""
REST_S = 5.0


@dataclass(frozen=True)
class Piece:
    """Rows [first, stop) of an episode that are sent as one chunk; the first begins so long after the first action."""

    begin_s: float
    first: int
    stop: int


def pieces(t_s: np.ndarray, dt_s: float) -> list[Piece]:
    """Chunks of rows that follow each other in the control period; a row that comes earlier or later begins another.

    Args:
        t_s: When each row began, after the first (N,), growing.
        dt_s: The control period.
    """
    most = min(MAX_ROWS, max(1, int(PIECE_S / dt_s)))
    found: list[Piece] = []
    first = 0
    for at in range(1, len(t_s) + 1):
        is_whole = at - first == most
        is_off = at < len(t_s) and abs(t_s[at] - t_s[first] - (at - first) * dt_s) > DRIFT * dt_s
        if at == len(t_s) or is_whole or is_off:
            found.append(Piece(float(t_s[first]), first, at))
            first = at
    return found


class Replay:
    """One replay; holds the lease from its beginning to its end."""

    def __init__(self, client: BridgeClient, episode: Episode, stage: str, near: float) -> None:
        """Check that arm and episode fit.

        Args:
            client: Connected.
            episode: Whose actions are played.
            stage: Which of them: `device` or `commanded`.
            near: Largest difference between where the arm begins and where the episode began, in units of the
                observation (m, rad); negative for any.

        Raises:
            BridgeError: Robot, actions or control period differ.
        """
        specs, arm = episode.header.specs, client.schema.arm.environment
        self._keys = [key for key, spec in specs.observation.items() if not is_picture(spec) and key in arm.observation]
        self._specs = {key: arm.observation[key] for key in self._keys}
        lines = _difference(episode, client)
        if lines:
            raise BridgeError(f"The bridge does not fit the episode: {'; '.join(lines)}.")
        self._client, self._episode, self._near = client, episode, near
        channel = episode.channels[action_topic(stage)]
        low, high = arm.action.bounds()
        self._actions = np.clip(channel.values.astype(np.float64), low, high)
        self._dt_s = specs.dt_s
        self._begin_ns = int(channel.t_ns[0])
        is_stepped = episode.header.clock == STEPS
        self._t_s = np.arange(len(channel.t_ns)) * self._dt_s if is_stepped else (channel.t_ns - self._begin_ns) / 1e9
        self._seen: list[tuple[int, dict[str, np.ndarray]]] = []
        self._success: bool | None = None

    def run(self, seed: int | None) -> Outcome:
        """Go home, to the scene of `seed` in a simulated world; play; come to rest.

        Raises:
            BridgeError: The arm begins elsewhere than the episode did, or the bridge fell silent or refused.
            SafetyError: The bridge stopped the arm. Nothing is released or reset then.
        """
        self._client.acquire()
        self._client.home(seed)
        self._check_beginning(self._fresh())
        self._client.arm()
        self._fresh()
        start_ns = self._client.now_ns() + round(2 * LEAD_S * 1e9)
        self._play(start_ns)
        self._client.disarm()
        self._rest()
        return Outcome(len(self._actions), self._compared(start_ns), self._success)

    def _fresh(self) -> BridgeState:
        """A state of no earlier than now: what was asked for before is done in it."""
        now_ns = self._client.now_ns()
        while (state := self._client.state()).t_ns < now_ns:
            pass
        return state

    def _play(self, start_ns: int) -> None:
        plan = pieces(self._t_s, self._dt_s)
        with tqdm(total=len(self._actions), unit="action", desc="replaying") as bar:
            for piece in plan:
                t0_ns = start_ns + round(piece.begin_s * 1e9)
                self._watch_until(t0_ns - round(LEAD_S * 1e9))
                self._client.send_chunk(ActionChunk(self._actions[piece.first : piece.stop], self._dt_s), t0_ns)
                bar.update(piece.stop - piece.first)
            self._watch_until(start_ns + round((float(self._t_s[-1]) + self._dt_s) * 1e9))

    def _watch_until(self, until_ns: int) -> None:
        """Read states, which also shows the bridge that this process lives."""
        while self._client.now_ns() < until_ns:
            state = self._client.state()
            _require_armed(state)
            self._seen.append((state.t_ns, {key: state.values[key].copy() for key in self._keys}))
            if "success" in state.values:
                self._success = state.success

    def _check_beginning(self, state: BridgeState) -> None:
        """Refuse to begin far from where the episode began."""
        first = {key: self._episode.channels[topic_of(key)].values[:1] for key in self._keys}
        pairs = {key: (values, state.values[key][None]) for key, values in first.items()}
        far = [found for found in largest(self._specs, pairs, np.zeros(1)) if not found.value <= self._near]
        if far and self._near >= 0:
            words = "; ".join(found.words() for found in far)
            raise BridgeError(
                f"The arm does not begin where the episode began: {words}; near={self._near} is accepted. Nothing was "
                "moved but home. Put things as they were, or play it nevertheless with near=-1."
            )

    def _compared(self, start_ns: int) -> list[Largest]:
        """What was measured against what was recorded at the same time after the first action."""
        if not self._seen:
            return []
        at_s = (np.array([t_ns for t_ns, _ in self._seen]) - start_ns) / 1e9
        kept = (at_s >= 0) & (at_s <= self._t_s[-1])
        pairs = {}
        for key in self._keys:
            channel = self._episode.channels[topic_of(key)]
            is_stepped = self._episode.header.clock == STEPS
            times = np.arange(len(channel.t_ns)) * self._dt_s if is_stepped else (channel.t_ns - self._begin_ns) / 1e9
            measured = np.stack([values[key] for _, values in self._seen])[kept]
            pairs[key] = resampled(times, channel.values, at_s[kept]), measured
        return largest(self._specs, pairs, at_s[kept])

    def _rest(self) -> None:
        until = time.monotonic() + REST_S
        while time.monotonic() < until:
            state = self._client.state()
            if state.mode == Mode.DISARMED and (np.abs(state.values["dq"]) <= STANDSTILL_RADPS).all():
                return
        raise BridgeError(f"The arm did not come to rest within {REST_S} s.")


def _difference(episode: Episode, client: BridgeClient) -> list[str]:
    """What keeps the arm from playing the episode's actions; its observations may be others."""
    ours, theirs = episode.header.specs, client.schema.arm.environment
    return replace(ours, observation={}).difference(replace(theirs, observation={}))


def _require_armed(state: BridgeState) -> None:
    if state.mode in (Mode.FAULT, Mode.STOPPING):
        raise SafetyError(f"The bridge latched a stop: {Fault(int(state.status('fault'))).name}. Find its cause first.")
    if state.mode != Mode.ARMED:
        raise SafetyError(
            "The arm came to rest and was disarmed during the replay: this process was away for longer than the arm's "
            "limits tolerate (silence_s), or another client sent stop."
        )
