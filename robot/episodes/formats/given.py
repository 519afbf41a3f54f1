"""What a user says of data whose files do not say it themselves."""

from dataclasses import dataclass

from robot.errors import ConfigError

UNKNOWN = "unknown"


@dataclass(frozen=True, kw_only=True)
class Given:
    """Each field stands in for what the files do not say; where they do, it takes their place.

    Attributes:
        fps: Rows per second; 0 where nothing was given.
        robot: Name of the robot; empty where nothing was given.
        action_space: Name of what an action means; empty where nothing was given.
        task: What was to be done; empty where nothing was given.
        state: Names of the vectors that make `observation.state`, in order; empty for what the format's rule takes.
    """

    fps: float = 0.0
    robot: str = ""
    action_space: str = ""
    task: str = ""
    state: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 <= self.fps < float("inf"):
            raise ConfigError(f"fps is {self.fps}, expected a rate in Hz (or 0 for what the file says).")
