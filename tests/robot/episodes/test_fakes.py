from robot.conformance.environment import EnvironmentConformance
from tests.robot.episodes.fakes import PointWorld


class TestPointWorld(EnvironmentConformance):
    """What the recorder is tested with keeps to the same contract as what it is used with."""

    def make(self) -> PointWorld:
        return PointWorld()
