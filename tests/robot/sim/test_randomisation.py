"""Worlds that look and behave differently in each episode, and equal for equal seeds."""

from collections.abc import Iterator
from dataclasses import asdict, replace

import gymnasium
import mujoco
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.config import load
from robot.conformance.environment import EnvironmentConformance
from robot.episodes.record import RecordConfig
from robot.errors import ConfigError, RenderingError, StateError
from robot.sim import make
from robot.sim.bodies import arm_bodies
from robot.sim.config import ENV_SCHEMAS, EnvConfig, RandomisationConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.randomisation import RandomisedEnvironment

OFF = RandomisationConfig(
    enabled=True,
    texture=0.0,
    colour=0.0,
    light_position_m=0.0,
    light_direction_rad=0.0,
    light_intensity=(1.0, 1.0),
    camera_position_m=0.0,
    camera_rotation_rad=0.0,
    camera_fovy_deg=0.0,
    friction=(1.0, 1.0),
    mass=(1.0, 1.0),
)


class TestRandomisedLift(EnvironmentConformance):
    def make(self) -> RandomisedEnvironment:
        environment = make(EnvConfig(horizon=8, randomisation=RandomisationConfig(enabled=True)))
        assert isinstance(environment, RandomisedEnvironment)
        return environment


@pytest.fixture(scope="module")
def bare() -> Iterator[RobosuiteEnvironment]:
    environment = make(EnvConfig())
    assert isinstance(environment, RobosuiteEnvironment)
    yield environment
    environment.close()


@pytest.fixture
def wrapped(bare: RobosuiteEnvironment) -> Iterator[RandomisedEnvironment]:
    environment = RandomisedEnvironment(bare, RandomisationConfig(enabled=True))
    yield environment
    environment.restore_nominal()


def model_arrays(model: mujoco.MjModel) -> dict[str, np.ndarray]:
    """Every array and number of a model that a draw could touch."""
    names = [name for name in dir(model) if not name.startswith("_")]
    arrays = {name: getattr(model, name) for name in names}
    found = {name: array.copy() for name, array in arrays.items() if isinstance(array, np.ndarray)}
    for name in ("meaninertia", "meanmass", "meansize", "extent", "center"):
        found[f"stat.{name}"] = np.array(getattr(model.stat, name))
    for name in ("ambient", "diffuse", "specular"):
        found[f"headlight.{name}"] = np.array(getattr(model.vis.headlight, name))
    return found


def changed(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> set[str]:
    return {name for name in one if not np.array_equal(one[name], other[name])}


def test_equal_seeds_give_equal_worlds_and_nothing_drifts(wrapped: RandomisedEnvironment) -> None:
    wrapped.restore_nominal()
    nominal = model_arrays(wrapped.model)
    wrapped.reset(seed=5)
    first, drawn = model_arrays(wrapped.model), wrapped.drawn
    for seed in range(100, 200):
        wrapped.reset(seed=seed)
    assert changed(first, model_arrays(wrapped.model))
    _, info = wrapped.reset(seed=5)
    assert not changed(first, model_arrays(wrapped.model))
    assert info["randomisation"] == drawn == wrapped.drawn
    wrapped.restore_nominal()
    assert not changed(nominal, model_arrays(wrapped.model))


def test_another_process_of_the_same_model_draws_the_same(wrapped: RandomisedEnvironment) -> None:
    """Another environment stands for another process; numbers come from the seed alone."""
    other = make(EnvConfig(randomisation=RandomisationConfig(enabled=True)))
    other.reset(seed=1)
    for environment in (wrapped, other):
        environment.reset(seed=77)
    assert not changed(model_arrays(wrapped.model), model_arrays(other.model))
    # Without a seed the last one goes on, alike in both.
    drawn = [environment.reset()[1]["randomisation"] for environment in (wrapped, other)]
    assert drawn[0] == drawn[1]
    assert drawn[0]["seed"] != 77
    other.close()


@pytest.mark.slow
def test_constants_do_not_depend_on_where_the_last_episode_put_the_door() -> None:
    config = EnvConfig(task="door", randomisation=RandomisationConfig(enabled=True))
    one, other = make(config), make(config)
    for seed in range(3):
        one.reset(seed=seed)
    for environment in (one, other):
        environment.reset(seed=50)
    assert not changed(model_arrays(one.model), model_arrays(other.model))


def test_neutral_settings_change_nothing_at_all(bare: RobosuiteEnvironment) -> None:
    """Bit-equal episodes, seeded and not, and off unless asked for."""

    def episodes(environment: RobosuiteEnvironment | RandomisedEnvironment) -> list[np.ndarray]:
        rng, seen = np.random.default_rng(0), []
        for seed in (3, None, 4):
            seen += list(environment.reset(seed=seed)[0].values())
            for _ in range(5):
                observation, *_ = environment.step(environment.specs.action.generate_value(rng))
                seen += list(observation.values())
        return seen

    nominal = model_arrays(bare.model)
    neutral = RandomisedEnvironment(bare, OFF)
    for one, other in zip(episodes(neutral), episodes(bare), strict=True):
        np.testing.assert_array_equal(one, other)
    assert not changed(nominal, model_arrays(bare.model))
    assert isinstance(make(EnvConfig()), RobosuiteEnvironment)


KINDS = {
    "texture": (1.0, {"tex_data"}),
    "colour": (1.0, {"mat_rgba", "geom_rgba"}),
    "light_position_m": (0.5, {"light_pos"}),
    "light_direction_rad": (0.5, {"light_dir"}),
    "light_intensity": ((0.5, 0.9), {"light_diffuse", "light_specular", "headlight.ambient", "headlight.diffuse"}),
    "camera_position_m": (0.1, {"cam_pos"}),
    "camera_rotation_rad": (0.1, {"cam_quat"}),
    "camera_fovy_deg": (5.0, {"cam_fovy"}),
    "friction": ((0.5, 0.9), {"geom_friction"}),
    "mass": ((0.5, 0.9), {"body_mass", "body_inertia", "body_invweight0", "dof_M0"}),
}


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_changes_what_it_names_and_draws_the_same_alone(
    kind: str, bare: RobosuiteEnvironment, wrapped: RandomisedEnvironment
) -> None:
    amount, fields = KINDS[kind]
    wrapped.restore_nominal()
    nominal = model_arrays(bare.model)
    alone = RandomisedEnvironment(bare, replace(OFF, **{kind: amount}))
    alone.reset(seed=9)
    drawn = model_arrays(bare.model)
    touched = changed(nominal, drawn)
    assert fields <= touched
    allowed = fields | {"light_ambient", "headlight.specular", "body_subtreemass", "dof_invweight0", "stat.meaninertia"}
    assert touched <= allowed | {"actuator_acc0", "cam_poscom0", "light_poscom0", "dof_length"}
    alone.restore_nominal()
    together = RandomisedEnvironment(bare, replace(RandomisationConfig(enabled=True), **{kind: amount}))
    together.reset(seed=9)
    for field in fields - {"geom_rgba"}:
        np.testing.assert_array_equal(model_arrays(bare.model)[field], drawn[field])
    together.restore_nominal()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**31 - 1), st.floats(0.1, 1.0), st.floats(1.0, 3.0), st.floats(0.0, 0.2))
def test_draws_stay_inside_their_ranges(
    bare: RobosuiteEnvironment, seed: int, low: float, high: float, amount: float
) -> None:
    nominal = model_arrays(bare.model)
    config = replace(
        RandomisationConfig(enabled=True),
        texture=0.0,
        friction=(low, high),
        mass=(low, high),
        light_intensity=(low, high),
        camera_position_m=amount,
        camera_rotation_rad=amount,
        light_direction_rad=amount,
    )
    environment = RandomisedEnvironment(bare, config)
    environment.reset(seed=seed)
    drawn = model_arrays(bare.model)
    arm = arm_bodies(bare.model)
    for name in ("geom_friction", "body_mass", "body_inertia", "light_diffuse", "headlight.ambient"):
        positive = nominal[name] > 0
        factors = drawn[name][positive] / nominal[name][positive]
        assert ((factors >= low * (1 - 1e-6)) & (factors <= high * (1 + 1e-6))).all()
        assert (drawn[name][~positive] == 0).all()
    assert (np.abs(drawn["cam_pos"] - nominal["cam_pos"]) <= amount + 1e-12).all()
    # Half the angle of a rotation is the arc cosine of the quaternions' product.
    cosine = np.abs((drawn["cam_quat"] * nominal["cam_quat"]).sum(axis=1)).clip(0, 1)
    assert (2 * np.arccos(cosine) <= np.sqrt(3) * amount + 1e-6).all()
    np.testing.assert_allclose(np.linalg.norm(drawn["light_dir"], axis=1), np.linalg.norm(nominal["light_dir"], axis=1))
    assert (drawn["mat_rgba"] >= 0).all()
    assert (drawn["mat_rgba"] <= 1).all()
    np.testing.assert_array_equal(drawn["body_mass"][arm], nominal["body_mass"][arm])
    np.testing.assert_array_equal(
        drawn["geom_friction"][arm[bare.model.geom_bodyid]], nominal["geom_friction"][arm[bare.model.geom_bodyid]]
    )
    environment.restore_nominal()


def test_mass_and_inertia_grow_together_and_the_arm_only_if_asked(bare: RobosuiteEnvironment) -> None:
    nominal = model_arrays(bare.model)
    environment = RandomisedEnvironment(bare, replace(OFF, mass=(2.0, 2.0)))
    environment.reset(seed=0)
    cube = bare.model.body("cube_main").id
    drawn = model_arrays(bare.model)
    assert drawn["body_mass"][cube] == pytest.approx(2 * nominal["body_mass"][cube])
    np.testing.assert_allclose(drawn["body_inertia"][cube], 2 * nominal["body_inertia"][cube])
    # What follows from it, by MuJoCo's definitions: the inverse weight halves, and so do those of the cube's joint.
    np.testing.assert_allclose(drawn["body_invweight0"][cube], nominal["body_invweight0"][cube] / 2, rtol=1e-6)
    dofs = np.flatnonzero(bare.model.dof_bodyid == cube)
    np.testing.assert_allclose(drawn["dof_invweight0"][dofs], nominal["dof_invweight0"][dofs] / 2, rtol=1e-6)
    environment.restore_nominal()
    whole = RandomisedEnvironment(bare, replace(OFF, mass=(2.0, 2.0), arm=True))
    whole.reset(seed=0)
    movable = (bare.model.body_weldid != 0) & (nominal["body_mass"] > 0)
    np.testing.assert_allclose(bare.model.body_mass[movable], 2 * nominal["body_mass"][movable])
    whole.restore_nominal()


def slide_m(bare: RobosuiteEnvironment, **ranges: tuple[float, float]) -> float:
    """How far a cube slides that is pushed off at 0.5 m/s."""
    environment = RandomisedEnvironment(bare, replace(OFF, **ranges))
    environment.reset(seed=0)
    cube = environment.data.joint("cube_joint0")
    for _ in range(5):
        environment.step(np.zeros(7))  # it comes to lie on the table
    start = cube.qpos[:3].copy()
    cube.qvel[:] = [0.0, 0.5, 0.0, 0.0, 0.0, 0.0]
    for _ in range(20):
        environment.step(np.zeros(7))
    distance = float(np.linalg.norm(cube.qpos[:3] - start))
    environment.restore_nominal()
    return distance


def test_a_pushed_cube_slides_farther_with_less_friction(bare: RobosuiteEnvironment) -> None:
    """v² / (2 μ g) on a plane: the friction between cube and table is the larger of theirs."""
    distances = [slide_m(bare, friction=(factor, factor)) for factor in (0.2, 0.4, 1.0)]
    table = bare.model.geom("table_collision").friction[0]
    cube = bare.model.geom_friction[bare.model.geom_bodyid == bare.model.body("cube_main").id, 0].max()
    for factor, distance in zip((0.2, 0.4), distances[:2], strict=False):
        assert distance == pytest.approx(0.5**2 / (2 * factor * max(table, cube) * 9.81), rel=0.25)
    assert distances[0] > 1.5 * distances[1] > 1.5 * distances[2]


def test_a_heavier_cube_presses_harder(bare: RobosuiteEnvironment) -> None:
    def force_n(factor: float) -> float:
        environment = RandomisedEnvironment(bare, replace(OFF, mass=(factor, factor)))
        environment.reset(seed=0)
        for _ in range(10):
            environment.step(np.zeros(7))
        dof = environment.model.joint("cube_joint0").dofadr[0] + 2
        environment.restore_nominal()
        return float(environment.data.qfrc_constraint[dof])

    cube_kg = bare.model.body("cube_main").mass[0]
    assert force_n(1.0) == pytest.approx(cube_kg * 9.81, rel=0.01)
    assert force_n(3.0) == pytest.approx(3 * cube_kg * 9.81, rel=0.01)


def test_a_refused_reset_leaves_the_world_as_it_was(wrapped: RandomisedEnvironment) -> None:
    wrapped.reset(seed=1)
    before, drawn = model_arrays(wrapped.model), wrapped.drawn
    with pytest.raises(StateError):
        wrapped.reset(seed=2, options={"state": np.zeros(3)})
    assert not changed(before, model_arrays(wrapped.model))
    assert wrapped.drawn == drawn


def test_a_stored_state_can_be_seen_in_another_world(wrapped: RandomisedEnvironment) -> None:
    wrapped.reset(seed=1)
    state = wrapped.stored_state()
    wrapped.reset(seed=2, options={"state": state})
    assert wrapped.drawn["seed"] == 2
    np.testing.assert_array_equal(wrapped.stored_state().flat, state.flat)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"texture": 1.5}, "texture is 1.5, expected 0 to 1"),
        ({"colour": float("nan")}, "colour is nan"),
        ({"camera_fovy_deg": -1.0}, "camera_fovy_deg is -1.0"),
        ({"friction": (2.0, 1.0)}, r"friction is \(2.0, 1.0\)"),
        ({"mass": (0.0, 1.0)}, "0 < low"),
    ],
)
def test_ranges_that_make_no_sense(changes: dict, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        RandomisationConfig(**changes)


def test_it_is_configured_like_everything_else() -> None:
    overrides = ["env.randomisation.enabled=true", "env.randomisation.mass=[0.5,2.0]"]
    config = load("record", RecordConfig, overrides, {"env": ENV_SCHEMAS}).env
    assert tuple(config.randomisation.mass) == (0.5, 2.0)
    assert config.randomisation.enabled
    assert not load("record", RecordConfig, [], {"env": ENV_SCHEMAS}).env.randomisation.enabled
    assert asdict(config)["randomisation"]["texture"] == 0.5


def test_gymnasium_makes_randomised_worlds_too() -> None:
    randomisation = {"enabled": True, "texture": 0.0}
    environment = gymnasium.make("robot.sim.environment:armature/Lift-v0", randomisation=randomisation)
    _, info = environment.reset(seed=3)
    assert info["randomisation"]["seed"] == 3
    environment.close()


@pytest.mark.gl
@pytest.mark.slow
def test_pictures_show_what_was_drawn() -> None:
    environment = make(EnvConfig(randomisation=replace(OFF, texture=1.0)))
    try:
        environment.reset(seed=0)
        one = environment.render()
        environment.reset(seed=1)
        other = environment.render()
        environment.reset(seed=0)
        again = environment.render()
    except RenderingError as error:
        pytest.skip(str(error))
    assert np.abs(one.astype(int) - other).mean() > 5
    np.testing.assert_array_equal(one, again)
    environment.close()
