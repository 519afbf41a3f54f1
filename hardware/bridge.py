"""`armature bridge`: hold an arm in a real-time process, behind a gateway, until Ctrl-C."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from hardware.arms import ARM_SCHEMAS, ArmConfig, to_json
from hardware.cameras.config import CAMERA_SCHEMAS, CameraConfig, selections
from hardware.cameras.fleet import Fleet, surroundings
from hardware.gateway import CHANNELS, Gateway, Listen
from hardware.histogram import drawn
from hardware.keys import BridgeKeys
from hardware.shared_memory import SharedMemory, Word
from hardware.sockets import addresses, require_safe
from robot import config, errors
from robot.bridge.schema import arm_specs_from_json
from robot.control.limits import limits_from_mapping
from robot.errors import ArmatureError, BridgeError, ConfigError, unknown_name
from robot.sim.config import ENV_SCHEMAS, EnvConfig

PATIENCE_S = 5.0
"""How long a start takes until a word is said about it [s]."""
START_S = 180.0
"""Longest start of the real-time process: the first one compiles the simulated controller."""
STOP_S = 10.0
"""Longest time until the arm has stopped and the real-time process has ended."""


@dataclass(kw_only=True)
class BridgeConfig:
    """Keys of `configs/bridge.yaml`.

    Attributes:
        arm: Which arm, and its limits.
        env: World of a simulated arm; `task=lift` selects it as well.
        host: Address to listen on; or `ipc://` and a folder, for clients of this user on this machine.
        cameras: Cameras by name; `cameras=[front:opencv,side:fake]` takes each from an option of `camera`.
        port: First of five ports, and one more for each camera; 0 for any that are free.
        keys: Folder of the bridge's keys and of those it lets in; empty for none, on loopback addresses only.
        state_hz: How often the state is published.
        lease_ttl_s: Life of a lease without a sign of its holder [s].
        priority: SCHED_FIFO priority of the real-time process; 0 for none.
        core: Core that it stays on; -1 for any.
        spin_us: End of every wait of the real-time process that it spends awake [µs].
    """

    arm: ArmConfig
    env: EnvConfig
    cameras: dict[str, CameraConfig] = field(default_factory=dict)
    host: str
    port: int
    keys: str
    state_hz: float
    lease_ttl_s: float
    priority: int
    core: int
    spin_us: int

    def __post_init__(self) -> None:
        taken = len(CHANNELS) + len(self.cameras)
        if not 0 <= self.port <= 65536 - taken:
            raise ConfigError(
                f"port is {self.port}, expected 0 or 1 to {65536 - taken}: this bridge takes {taken} ports in a row."
            )
        if not 10 <= self.state_hz <= 1000:
            raise ConfigError(f"state_hz is {self.state_hz}, expected 10 to 1000.")
        if not 0 <= self.spin_us <= 1000:
            raise ConfigError(f"spin_us is {self.spin_us}, expected 0 to 1000: it takes that share of a core.")


def main(overrides: list[str]) -> int:
    """Serve one arm; 0 after Ctrl-C or SIGTERM, 1 if the real-time process ended by itself."""
    selected = [part for text in overrides for part in _selections(text)]
    groups = {"arm": ARM_SCHEMAS, "env": ENV_SCHEMAS, "camera": CAMERA_SCHEMAS}
    settings = config.load("bridge", BridgeConfig, selected, groups)
    listen = Listen(settings.host, settings.port, BridgeKeys(settings.keys) if settings.keys else None)
    require_safe(listen.host, listen.keys)
    memory = SharedMemory.create()
    memory.states.wake_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
    process = RealtimeProcess(settings, memory)
    try:
        return _serve(settings, listen, memory, process)
    finally:
        process.end(memory)
        memory.close()


def _selections(override: str) -> list[str]:
    """`task=lift` is short for `env=lift`, and `cameras=[...]` for options of the group `camera`."""
    if override.startswith("cameras="):
        return selections(override.removeprefix("cameras="))
    if not override.startswith("task="):
        return [override]
    task = override.removeprefix("task=")
    if task not in config.options("env"):
        raise unknown_name("task", task, config.options("env"))
    return [f"env={task}"]


def _serve(settings: BridgeConfig, listen: Listen, memory: SharedMemory, process: "RealtimeProcess") -> int:
    asked: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda got, _: asked.append(got))
    ready = process.ready(asked)
    if ready is None:
        return 130
    arm = arm_specs_from_json(ready["arm"])
    limits = limits_from_mapping(arm.target_space, ready["limits"])
    gateway = Gateway(arm, limits, memory, listen, settings.lease_ttl_s)
    fleet = _cameras(settings, gateway, memory)
    try:
        if not fleet.wait(lambda: _alive(memory) or bool(asked)):
            return 130
        gateway.schema.images.update(fleet.streams)
        for note in ready["notes"]:
            print(note, file=sys.stderr, flush=True)
        low, high = list(limits.workspace_low_m), list(limits.workspace_high_m)
        print(
            f"Ready: {gateway.schema.endpoints['control']} holds {arm.robot} ({settings.arm.driver}) at "
            f"{arm.rate_hz:.0f} Hz; workspace {low} to {high} m; Ctrl-C ends.",
            flush=True,
        )

        def is_over() -> bool:
            gateway.cameras_down = fleet.watch()
            return bool(asked) or not process.is_running()

        gateway.serve(settings.state_hz, is_over)
        counts = gateway.newest
    finally:
        # The arm first: a camera that hangs takes seconds to end.
        report = process.end(memory)
        pictures = fleet.end()
        gateway.close()
    _print_report(report, counts, gateway.front.counters())
    _print_cameras(pictures)
    if not asked:
        raise BridgeError(f"The real-time process ended by itself: {report.get('ended', 'it crashed')}.")
    return 0


def _cameras(settings: BridgeConfig, gateway: Gateway, memory: SharedMemory) -> Fleet:
    names = {f"images.{name}": name for name in settings.cameras}
    found = addresses(settings.host, settings.port, [*CHANNELS, *names])
    where = {name: found[channel] for channel, name in names.items()}
    return Fleet(settings.cameras, surroundings(gateway.schema, memory, where, settings.keys))


def _alive(memory: SharedMemory) -> bool:
    """Tell the real-time process that the gateway lives, which waits for something else; never over."""
    memory.words[Word.GATEWAY_ALIVE_NS] = time.monotonic_ns()
    return False


def _print_cameras(pictures: dict[str, dict[str, Any]]) -> None:
    for name, report in pictures.items():
        if report:
            print(
                f"Camera {name}: {report['pictures']} pictures, {report['encode_ms']:.2f} ms to encode one "
                f"({report['encode_max_ms']:.2f} ms at most), {report['cpu_s']:.1f} s of CPU.",
                flush=True,
            )


def _print_report(report: dict[str, Any], counts: dict[str, float], refused: dict[str, int]) -> None:
    if report:
        print(
            f"{report['cycles']} cycles; lateness p50 {report['late_p50_us'] / 1000:.3f} ms, "
            f"p99 {report['late_p99_us'] / 1000:.3f} ms, p99.9 {report['late_p999_us'] / 1000:.3f} ms, "
            f"max {report['late_max_us'] / 1000:.3f} ms; busy p50 {report['busy_p50_us'] / 1000:.3f} ms, "
            f"p99 {report['busy_p99_us'] / 1000:.3f} ms; "
            f"{report['overruns']} overruns, {report['skipped_periods']} periods skipped. Lateness:",
            *drawn(report["late_rows"]),
            sep="\n",
        )
    reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(refused.items()))
    print(
        f"Commands: {counts['stale_rows']:.0f} stale rows, {counts['clamped']:.0f} clamped cycles, "
        f"{counts['rejected']:.0f} rejected chunks; {sum(refused.values())} refused frames"
        f"{f' ({reasons})' if reasons else ''}.",
        flush=True,
    )


class RealtimeProcess:
    """The child that holds the arm. It ends with us, whatever happens to us."""

    def __init__(self, settings: BridgeConfig, memory: SharedMemory) -> None:
        """Start it; the arm is not touched before it says `ready`."""
        content = to_json(settings.arm, settings.env)
        content |= {"priority": settings.priority, "core": settings.core, "spin_us": settings.spin_us}
        # One thread of linear algebra: a second would fight with the loop for its core.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
        self._process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "hardware.realtime",
                str(memory.fd),
                str(memory.states.wake_fd),
                json.dumps(content),
            ],
            stdout=subprocess.PIPE,
            pass_fds=[memory.fd, memory.states.wake_fd],
            env={**os.environ, **threads},
            text=True,
            # The scheduler shares cores among sessions: what else runs in this terminal takes nothing from the loop.
            start_new_session=True,
        )
        self._report: dict[str, Any] | None = None

    def is_running(self) -> bool:
        """Whether the process lives."""
        return self._process.poll() is None

    def ready(self, asked: list[int]) -> dict[str, Any] | None:
        """What it says when the arm is open, or None if we are `asked` to end before that.

        Raises:
            ArmatureError: It could not open the arm; as it said.
        """
        assert self._process.stdout is not None
        begun, is_told = time.monotonic(), False
        while (passed_s := time.monotonic() - begun) < START_S:
            if asked:
                return None
            if passed_s > PATIENCE_S and not is_told:
                print("Starting; the first start on a machine compiles for a minute.", file=sys.stderr, flush=True)
                is_told = True
            if select.select([self._process.stdout], [], [], 0.1)[0]:
                message = _message(self._process.stdout.readline())
                if "error" in message:
                    raise _error_named(message["kind"])(message["error"])
                if "arm" not in message:
                    raise BridgeError("The real-time process crashed while it started; its traceback is above.")
                return message
        raise BridgeError(f"The arm was not ready after {START_S:.0f} s.")

    def end(self, memory: SharedMemory) -> dict[str, Any]:
        """Let it stop the arm and end; what it reports, empty if it crashed. Kills it only if it does not answer."""
        if self._report is not None:
            return self._report
        if memory.fd >= 0:
            memory.words[Word.SHUTDOWN] = 1
        if self.is_running():
            self._process.terminate()
        try:
            text, _ = self._process.communicate(timeout=STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            text, _ = self._process.communicate()
            print("The real-time process did not end and was killed. Check the arm.", file=sys.stderr, flush=True)
        message = _message(text.strip().rpartition("\n")[2])
        self._report = message if "cycles" in message else {}
        return self._report


def _message(line: str) -> dict[str, Any]:
    try:
        message = json.loads(line)
    except ValueError:
        return {}
    return message if isinstance(message, dict) else {}


def _error_named(kind: str) -> type[ArmatureError]:
    found = getattr(errors, kind, None)
    return found if isinstance(found, type) and issubclass(found, ArmatureError) else BridgeError
