"""The one error tree. A message says what went wrong, what was got, what was expected or is available, and what to do.

The command line turns an `ArmatureError` into one sentence and exit status 1; anything else is a defect of ours and
keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class ArmatureError(Exception):
    """Base of every error that a user can cause or mend."""


class SpecError(ArmatureError, ValueError):
    """An array does not fit its spec: shape, dtype, range, or a NaN."""


class ConfigError(ArmatureError):
    """A configuration names something that does not exist or has a value of the wrong kind."""


class UnknownNameError(ConfigError):
    """A verb, task, policy, arm or key that does not exist; carries the nearest names that do."""


class EpisodeError(ArmatureError):
    """An episode file is missing, truncated, or of another robot."""


class DatasetError(ArmatureError):
    """A dataset is missing, damaged, of a foreign version, or does not fit what reads it."""


class CheckpointError(ArmatureError):
    """A checkpoint is missing, truncated, foreign, or does not fit the specs it is used with."""


class StateError(ArmatureError):
    """A stored state is damaged, holds a NaN, or is of another model."""


class WorkerError(ArmatureError):
    """A worker process died or failed."""


class RenderingError(ArmatureError):
    """No OpenGL library that MuJoCo can render with."""


class DeviceError(ArmatureError):
    """A device did not open, or stopped answering."""


class SafetyError(ArmatureError):
    """Limits are missing or inconsistent, or a measured violation latched a stop."""


class BridgeError(ArmatureError):
    """The bridge refused a request, or does not answer."""


class WireError(BridgeError):
    """Bytes that are not a valid frame.

    Attributes:
        reason: What is wrong with them, a `robot.bridge.wire.Reason`.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class LeaseError(BridgeError):
    """Somebody else drives the arm, or the lease has expired."""


def unknown_name(kind: str, got: str, available: Iterable[str], fix: str = "") -> UnknownNameError:
    """An error that names the nearest of the available names first, then all of them.

    Args:
        kind: What the name stands for, in the user's words ("verb", "task", "config key").
        got: The name as it was typed.
        available: Every name that would have been accepted.
        fix: One more sentence on what to do, if the names do not say it.
    """
    names = sorted(set(available))
    near = difflib.get_close_matches(got, names, n=3, cutoff=0.6)
    parts = [f"Unknown {kind} {got!r}."]
    if near:
        parts.append(f"Did you mean {' or '.join(repr(name) for name in near)}?")
    parts.append(f"Available: {', '.join(names) or 'none'}.")
    if fix:
        parts.append(fix)
    return UnknownNameError(" ".join(parts))
