import numpy as np

from robot.contract import ActionChunk, EnvironmentSpecs, Observation, Policy, PolicySpecs
from robot.loop import ObservationHistory, Step, rollout
from robot.specs import ArraySpec

SPECS = EnvironmentSpecs(
    observation={"observation.state": ArraySpec("observation.state", (1,))},
    action=ArraySpec("action", (1,), low=-1.0, high=1.0),
    action_space="ee_delta",
    dt_s=0.05,
    robot="counter",
    task="count",
)


class Counter:
    """Counts its steps in the observation; succeeds on steps 3 and 4, ends after 6."""

    specs = SPECS

    def reset(self, *, seed: int | None = None, options: dict | None = None) -> tuple[Observation, dict]:
        self.count, self.seed, self.actions = 0, seed, []
        return self._observe(), {}

    def step(self, action: np.ndarray) -> tuple[Observation, float, bool, bool, dict]:
        self.count += 1
        self.actions.append(float(action[0]))
        return self._observe(), 0.5, False, self.count == 6, {"success": self.count in (3, 4)}

    def _observe(self) -> Observation:
        return {"observation.state": np.array([self.count], np.float32)}

    def render(self) -> np.ndarray:
        return np.zeros((2, 2, 3), np.uint8)

    def close(self) -> None:
        pass


class Echo(Policy):
    """Chunks whose rows tell the newest observation and the row; remembers what it saw."""

    specs = PolicySpecs(SPECS, n_obs_steps=2, horizon=4, n_action_steps=2)

    def reset(self, seed: int | None = None) -> None:
        self.seen: list[list[float]] = []
        self.seed = seed

    def act(self, observation: Observation) -> ActionChunk:
        stack = observation["observation.state"]
        self.seen.append(stack[:, 0].tolist())
        return ActionChunk(stack[-1] * 0.1 + np.arange(4)[:, None] * 0.01, dt_s=0.05)


def test_chunks_are_played_for_n_action_steps_and_history_repeats_the_first() -> None:
    environment, policy = Counter(), Echo()
    steps: list[Step] = []
    outcome = rollout(environment, policy, seed=7, on_step=steps.append)
    assert policy.seen == [[0, 0], [1, 2], [3, 4]]
    assert np.allclose(environment.actions, [0.0, 0.01, 0.2, 0.21, 0.4, 0.41])
    assert (environment.seed, policy.seed) == (7, 7)
    assert [step.index for step in steps] == list(range(6))
    assert [step.observation["observation.state"].item() for step in steps] == list(range(6))
    assert steps[-1].truncated
    assert not any(step.terminated for step in steps)
    assert (outcome.steps, outcome.episode_return, len(outcome.inference_s)) == (6, 3.0, 3)


def test_sticky_and_final_success_differ() -> None:
    outcome = rollout(Counter(), Echo(), seed=0)
    assert outcome.success_sticky
    assert not outcome.success_final


def test_a_disturbance_changes_what_is_sent_but_not_what_was_asked_for() -> None:
    environment = Counter()
    steps: list[Step] = []
    rollout(environment, Echo(), seed=0, disturbance=lambda action: action + 0.5, on_step=steps.append)
    assert np.allclose([step.commanded - step.device for step in steps], 0.5)
    assert np.allclose([step.commanded[0] for step in steps], environment.actions)


def test_history_stacks_oldest_first() -> None:
    history = ObservationHistory(3)
    for value in range(5):
        history.push({"x": np.array([value])})
    assert history.stacked()["x"].tolist() == [[2], [3], [4]]
    history.reset()
    history.push({"x": np.array([9])})
    assert history.stacked()["x"].tolist() == [[9], [9], [9]]
