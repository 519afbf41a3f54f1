import numpy as np
import pytest

from robot.contract import ActionChunk, EnvironmentSpecs, Observation, Policy, PolicySpecs
from robot.control import action_spaces
from robot.errors import ConfigError
from robot.loop import rollout
from robot.sim import expert
from robot.sim.experts.failing import FAULTS, FailingExpert
from robot.specs import ArraySpec
from tests.robot.episodes.fakes import PointPusher, point_specs
from tests.robot.sim.experts.worlds import as_recorded

STATE, ENVIRONMENT_STATE = "observation.state", "observation.environment_state"
CLOSING = np.array([0.4, -0.7, 1.0, 0.1, -1.0, 0.2, 1.0], np.float32)


def specs() -> EnvironmentSpecs:
    state = ArraySpec(STATE, (4,), names=("ee_x", "ee_y", "ee_z", "finger_left"))
    world = ArraySpec(ENVIRONMENT_STATE, (7,), names=("can_x", "can_y", "can_z", "can_dx", "can_dy", "can_dz", "latch"))
    observation = {STATE: state, ENVIRONMENT_STATE: world}
    return EnvironmentSpecs(observation, action_spaces.ee_delta(), "ee_delta", 0.05, "Panda", "anything")


class Closing(Policy):
    """Opens for three steps, then does the same thing for ever; remembers what it saw."""

    def __init__(self) -> None:
        self.specs = PolicySpecs(specs(), 1, 1, 1)
        self.saw: list[Observation] = []

    def reset(self, seed: int | None = None) -> None:
        self.saw = []

    def act(self, observation: Observation) -> ActionChunk:
        self.saw.append(observation)
        action = CLOSING if len(self.saw) > 3 else np.append(CLOSING[:-1], np.float32(-1.0))
        return ActionChunk(action[None], 0.05)


def seen() -> Observation:
    tool, can = np.array([0.4, 0.1, 0.2]), np.array([0.6, -0.1, 0.0])
    state, world = np.append(tool, 0.04), np.concatenate([can, can - tool, [0.3]])
    return {STATE: state[None].astype(np.float32), ENVIRONMENT_STATE: world[None].astype(np.float32)}


def episode(seed: int, steps: int = 80) -> tuple[str, np.ndarray, list[Observation]]:
    """Name of the fault, actions (steps, 7), and what the expert was shown."""
    inner = Closing()
    policy = FailingExpert(inner)
    policy.reset(seed)
    actions = np.concatenate([policy.act(seen()).actions for _ in range(steps)])
    return policy.fault, actions, inner.saw


def episodes(fault: str) -> list[tuple[np.ndarray, list[Observation]]]:
    first = [episode(seed, 1)[0] for seed in range(5)].index(fault)
    return [episode(seed)[1:] for seed in range(first, 50, 5)]


def test_equal_seeds_fail_alike_and_others_otherwise() -> None:
    np.testing.assert_array_equal(episode(4)[1], episode(4)[1])
    assert not np.array_equal(episode(4)[1], episode(9)[1])
    for first in range(0, 40, 5):
        assert {episode(seed, 1)[0] for seed in range(first, first + 5)} == set(FAULTS), "the five ways take turns"


def test_nothing_leaves_the_action_spec() -> None:
    for seed in range(40):
        for action in episode(seed)[1]:
            specs().action.validate(action)
            assert action.dtype == np.float32


def test_misjudges_by_some_centimetres_all_the_time() -> None:
    for actions, saw in episodes("misjudges"):
        np.testing.assert_array_equal(actions[10], CLOSING)
        shift = saw[0][STATE][0, :3] - seen()[STATE][0, :3]
        assert 0.03 - 1e-6 <= np.hypot(*shift[:2]) <= 0.06 + 1e-6
        assert -0.03 - 1e-6 <= shift[2] <= 0.0
        for one in saw:
            tool, world = one[STATE][0, :3], one[ENVIRONMENT_STATE][0]
            np.testing.assert_allclose(world[:3] - tool, world[3:6], atol=1e-6)
            np.testing.assert_array_equal(world[[0, 1, 2, 6]], seen()[ENVIRONMENT_STATE][0, [0, 1, 2, 6]])
            np.testing.assert_allclose(tool - seen()[STATE][0, :3], shift, atol=1e-6)


def test_drops_what_it_has_taken() -> None:
    held = {int((actions[:, 6] > 0).sum()) for actions, _ in episodes("drops")}
    assert held <= set(range(3, 11))
    assert len(held) > 2
    for actions, _ in episodes("drops"):
        assert (actions[3:6, 6] == 1.0).all()
        assert (actions[20:, 6] == -1.0).all()


def test_never_closes() -> None:
    for actions, _ in episodes("never_closes"):
        assert (actions[:, 6] == -1.0).all()
        np.testing.assert_array_equal(actions[:, :6], np.broadcast_to(CLOSING[:6], (80, 6)))


def test_gives_up() -> None:
    for actions, _ in episodes("gives_up"):
        pace = np.linalg.norm(actions[:, :6], axis=1)
        assert (np.diff(pace) < 1e-6).all()
        assert pace[0] > 1.0
        assert not pace[40:].any()
        assert (actions[40:, 6] == 1.0).all()


def test_strays_from_what_the_expert_wants() -> None:
    headings = []
    for actions, _ in episodes("strays"):
        np.testing.assert_array_equal(actions[4], CLOSING)
        assert np.ptp(actions[50:], axis=0).max() == 0.0
        assert 0.1 - 1e-6 <= np.abs(actions[-1, :3]).max() <= 0.4 + 1e-6
        headings.append(actions[-1, :3] / np.linalg.norm(actions[-1, :3]))
    assert np.linalg.norm(np.mean(headings, axis=0)) < 0.7


def test_refuses_other_actions() -> None:
    with pytest.raises(ConfigError, match="ee_delta"):
        FailingExpert(PointPusher(point_specs()))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("task", ["lift", "stack", "pick_place_can", "door"])
def test_most_episodes_fail(task: str) -> None:
    world = as_recorded(task)
    policy = FailingExpert(expert(task, world.specs))
    assert sum(rollout(world, policy, seed).success_final for seed in range(40)) <= 10
