import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from policies.evaluate import EvaluateConfig, evaluate
from policies.execution.asynchronous import AsynchronousConfig
from policies.execution.realtime import RealtimeConfig
from policies.execution.synchronous import SynchronousConfig
from robot.contract import EnvironmentSpecs
from robot.errors import ArmatureError, CheckpointError, ConfigError, StateError
from robot.sim.evaluation_sets import EvaluationSet
from tests.policies.worlds import SPECS, PointWorld, StatefulWorld, blind_world, dying_world, stored, trained


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A policy that finds most goals of the point world."""
    return trained(tmp_path_factory.mktemp("run"), "act", steps=300, batch_size=32, save_every=300, lr=3e-3)


def config(run: Path, **changes: int | str) -> EvaluateConfig:
    return EvaluateConfig(
        checkpoint=str(run),
        execution=SynchronousConfig(),
        **({"episodes": 6, "workers": 1, "video_episodes": 0} | changes),
    )


def test_the_result_does_not_depend_on_the_number_of_workers(run: Path) -> None:
    results = [evaluate(config(run, workers=workers), PointWorld) for workers in (1, 2)]
    for result in results:
        del result["inference_ms"]
        for record in result["per_episode"]:
            del record["inference_ms"]
    assert results[0] == results[1]
    assert [record["seed"] for record in results[0]["per_episode"]] == list(range(100_000, 100_006))
    assert results[0]["success_sticky"]["rate"] > 0
    assert json.loads((run / "evaluation.json").read_text())["episodes"] == 6


def test_episodes_begin_at_the_states_of_an_evaluation_set(run: Path, tmp_path: Path) -> None:
    """Where the point begins at its goal, the first step succeeds; where it begins far away, it does not."""
    here, far = np.array([0.5, -0.5]), np.array([-1.0, 1.0])
    states = EvaluationSet([stored(here, here), stored(far, -far), stored(here, here)])
    states.save(tmp_path / "set.npz")
    settings = {"states": str(tmp_path / "set.npz"), "episodes": 3}
    result = evaluate(config(run, **settings), StatefulWorld)
    steps = [record["steps"] for record in result["per_episode"]]
    assert steps[0] == steps[2] < steps[1]
    assert result["states"] == {"file": settings["states"], "sha256": states.digest()}
    with pytest.raises(ConfigError, match=r"episodes is 4, but .* has 3 states"):
        evaluate(config(run, states=settings["states"], episodes=4), StatefulWorld)
    with pytest.raises(StateError, match="There is no evaluation set"):
        evaluate(config(run, states=str(tmp_path / "absent.npz")), StatefulWorld)
    assert evaluate(config(run, episodes=1), StatefulWorld)["states"] is None


def test_videos_are_made_of_the_first_episodes(run: Path) -> None:
    import av

    result = evaluate(config(run, episodes=2, video_episodes=1), PointWorld)
    assert result["video_error"] == ""
    video = Path(result["per_episode"][0]["video"])
    assert result["per_episode"][1]["video"] == ""
    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        assert stream.codec_context.name == "h264"
        assert sum(1 for _ in container.decode(stream)) == result["per_episode"][0]["steps"]


def test_without_rendering_the_numbers_are_the_same(run: Path) -> None:
    blind = evaluate(config(run, episodes=2, video_episodes=2), blind_world)
    seeing = evaluate(config(run, episodes=2, video_episodes=2), PointWorld)
    assert blind["video_error"] == "no OpenGL here"
    assert blind["success_final"] == seeing["success_final"]
    assert [record["steps"] for record in blind["per_episode"]] == [record["steps"] for record in seeing["per_episode"]]


@pytest.mark.parametrize(
    ("specs", "says"),
    [
        (dataclasses.replace(SPECS, dt_s=0.1), "dt_s is 0.1, expected 0.05"),
        (dataclasses.replace(SPECS, robot="Other"), "robot is Other, expected Point"),
        (dataclasses.replace(SPECS, observation={}), "observation.state: missing"),
    ],
)
def test_another_world_is_refused(run: Path, specs: EnvironmentSpecs, says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        evaluate(config(run, episodes=1), partial(PointWorld, True, specs))


def test_a_worker_that_dies_is_reported(run: Path) -> None:
    with pytest.raises(ArmatureError, match=r"worker process of the evaluation died.*fewer workers"):
        evaluate(config(run, episodes=2, workers=2), dying_world)


def test_delay_costs_a_synchronous_policy_time_and_is_told(run: Path) -> None:
    still = evaluate(config(run), PointWorld)
    late = evaluate(dataclasses.replace(config(run), delay=3), PointWorld)
    flowing = dataclasses.replace(config(run), delay=3, execution=AsynchronousConfig(blend_rows=0))
    assert (late["delay"], late["execution"]["name"]) == (3, "synchronous")
    assert late["mean_steps"] > still["mean_steps"]
    assert evaluate(flowing, PointWorld)["execution"] == {"name": "asynchronous", "blend_rows": 0}
    with pytest.raises(ConfigError, match="cannot go on from planned rows"):
        evaluate(dataclasses.replace(config(run), execution=RealtimeConfig()), PointWorld)


def test_wrong_values_are_refused(run: Path) -> None:
    with pytest.raises(ConfigError, match="episodes is 0"):
        config(run, episodes=0)
