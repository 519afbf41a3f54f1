import numpy as np

from robot.sim.augmentation.guiding import BLOCK, POOL, Metric, Plan, coverage, judges, scenes
from robot.sim.augmentation.poses import matrix
from tests.robot.sim.augmentation.fakes import TableWorld, about_z

METRIC = Metric(("cube",), {"cube": 4})


def scene(x: float, y: float = 0.0, yaw: float = 0.0) -> dict[str, np.ndarray]:
    return {"cube": matrix(np.array([x, y, 0.02]), about_z(yaw))}


def test_the_metric_is_that_of_one_object_and_adds_up_over_several():
    some, others = [scene(0.0), scene(0.3)], [scene(0.0, yaw=np.pi / 2), scene(0.0, 0.4), scene(0.0, yaw=0.2)]
    np.testing.assert_allclose(METRIC.between(some, others), [[0.0, 0.4, 0.02], [0.3, 0.5, np.hypot(0.3, 0.02)]], 1e-6)
    both = Metric(("cube", "base"), {})
    one, other = ({**scene(0.0), "base": scene(x)["cube"]} for x in (0.0, 0.3))
    moved = {**other, "cube": scene(0.0, 0.4)["cube"]}
    np.testing.assert_allclose(both.between([one], [moved]), [[0.5]])


def test_coverage_is_the_distance_to_the_nearest():
    found = coverage(METRIC, [scene(0.0), scene(0.1), scene(0.5)], [scene(0.0), scene(0.2)])
    assert (round(found.mean_m, 9), round(found.worst_m, 9)) == (round(0.4 / 3, 9), 0.3)
    assert str(found) == "13.3 cm on average, 30.0 cm at worst"


def test_uniform_scenes_are_the_seeds_in_order_without_those_that_are_shown():
    plan = Plan("uniform", 10, [11, 13], METRIC, [scene(0.0)])
    assert [plan.seed(number, TableWorld()) for number in range(4)] == [10, 12, 14, 15]


def test_guided_scenes_are_the_same_whoever_asks():
    world, shown = TableWorld(), [scene(0.0)]
    one, other = (Plan("coverage", 10, [11], METRIC, shown) for _ in range(2))
    forwards = [one.seed(number, world) for number in range(2 * BLOCK)]
    assert [other.seed(number, world) for number in reversed(range(2 * BLOCK))] == forwards[::-1]
    assert len(set(forwards)) == len(forwards)
    assert set(forwards[:BLOCK]) <= set(range(10, 11 + BLOCK * POOL)) - {11}
    assert min(forwards[BLOCK:]) > 10 + BLOCK * POOL - 1


def test_guided_scenes_are_far_from_what_is_shown_and_from_each_other():
    world = TableWorld()
    shown = scenes(world, ["cube"], range(500, 540))
    shown = [one for one in shown if one["cube"][0, 3] < 0.0]  # all on one side of the table
    plan = Plan("coverage", 0, [], METRIC, shown)
    chosen = scenes(world, ["cube"], [plan.seed(number, world) for number in range(10)])
    drawn = scenes(world, ["cube"], range(10))
    assert np.mean([one["cube"][0, 3] > 0.0 for one in chosen]) >= 0.7
    judged = judges(world, METRIC)
    before, guided, uniform = (coverage(METRIC, judged, [*shown, *more]) for more in ([], chosen, drawn))
    assert guided.worst_m < uniform.worst_m < before.worst_m
    assert guided.mean_m < uniform.mean_m < before.mean_m
