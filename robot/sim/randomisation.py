"""Domain randomisation: each episode draws how the world looks and how things slide and weigh, from its seed.

What is drawn is written straight into MjModel. Every draw begins from the model as it was built, so that nothing
drifts, and each kind of draw has numbers of its own, so that switching one off leaves the others as they were.
"""

from typing import Any

import mujoco
import numpy as np

from robot.contract import Observation
from robot.errors import ArmatureError
from robot.sim.appearance import Appearance
from robot.sim.bodies import arm_bodies
from robot.sim.config import RandomisationConfig
from robot.sim.environment import RobosuiteEnvironment
from robot.sim.wrapping import WorldWrapper

Drawn = dict[str, Any]
"""What was drawn, as plain JSON."""

_BY_SET_CONST = (
    *("body_subtreemass", "body_invweight0", "dof_invweight0", "dof_M0", "dof_length"),
    *("tendon_length0", "tendon_invweight0", "actuator_length0", "actuator_acc0"),
    *("cam_poscom0", "cam_pos0", "cam_mat0", "light_poscom0", "light_pos0", "light_dir0"),
)
"""What `mj_setConst` computes from masses and placements."""


class Physics:
    """Frictions and masses of one model."""

    def __init__(self, model: mujoco.MjModel, config: RandomisationConfig) -> None:
        self._model, self._config = model, config
        self._scratch: mujoco.MjData | None = None
        fields = ("geom_friction", "body_mass", "body_inertia", *_BY_SET_CONST)
        self._nominal = {name: getattr(model, name).copy() for name in fields if hasattr(model, name)}
        self._meaninertia = float(model.stat.meaninertia)
        self._placed = model.body_pos.copy(), model.body_quat.copy()
        arm = arm_bodies(model)
        collides = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
        self._solid = [body for body in range(model.nbody) if not arm[body] and _any(collides, model, body)]
        is_movable = (model.body_weldid != 0) & (model.body_mass > 0.0)
        self._heavy: list[int] = np.flatnonzero(is_movable & (~arm | config.arm)).tolist()

    def restore(self) -> None:
        """As it was built."""
        for name, value in self._nominal.items():
            getattr(self._model, name)[:] = value
        self._model.stat.meaninertia = self._meaninertia

    def draw(self, seed: int) -> Drawn:
        """Draw factors, one for each body."""
        model = self._model
        drawn: Drawn = {"friction": {}, "mass": {}}
        for body, factor in zip(self._solid, _factors(seed, 0, self._config.friction, len(self._solid)), strict=True):
            model.geom_friction[model.geom_bodyid == body] *= factor
            drawn["friction"][model.body(body).name] = factor
        for body, factor in zip(self._heavy, _factors(seed, 1, self._config.mass, len(self._heavy)), strict=True):
            model.body_mass[body] *= factor
            model.body_inertia[body] *= factor
            drawn["mass"][model.body(body).name] = factor
        if tuple(self._config.mass) != (1.0, 1.0):
            self._set_constants()
        return drawn

    def _set_constants(self) -> None:
        """Let MuJoCo compute anew what follows from masses, at the placements of the model as it was built.

        A reset has moved some bodies since; at their places the constants would depend on the last episode.
        """
        model = self._model
        placed = model.body_pos.copy(), model.body_quat.copy()
        statistics = {
            name: np.array(getattr(model.stat, name)) for name in ("extent", "meansize", "meanmass", "center")
        }
        model.body_pos[:], model.body_quat[:] = self._placed
        if self._scratch is None:
            self._scratch = mujoco.MjData(model)
        mujoco.mj_setConst(model, self._scratch)
        model.body_pos[:], model.body_quat[:] = placed
        # These say how large the world is to look at, which a mass does not change.
        model.stat.center[:] = statistics.pop("center")
        for name, value in statistics.items():
            setattr(model.stat, name, float(value))


class RandomisedEnvironment(WorldWrapper):
    """A robosuite environment whose looks, frictions and masses each reset draws anew.

    The seed of a reset decides, here as in another process; without one, the generator that the last seed left does.
    `info["randomisation"]` of a reset says what was drawn.

    Attributes:
        specs: What it gives and takes.
        drawn: What the present episode has drawn.
    """

    def __init__(self, environment: RobosuiteEnvironment, config: RandomisationConfig) -> None:
        """Remember the model as it is now: to this, every draw returns first."""
        super().__init__(environment)
        self.drawn: Drawn = {}
        self._parts = (Appearance(environment.model, config), Physics(environment.model, config))
        self._rng = np.random.default_rng()
        self._seed: int | None = None

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Draw a world and begin an episode in it; takes and raises what the wrapped environment does."""
        if seed is not None:
            self._rng = np.random.default_rng(seed)
        before, drawn = self._seed, int(self._rng.integers(2**31)) if seed is None else seed
        self._draw(drawn)
        try:
            observation, info = self.env.reset(seed=seed, options=options)
        except ArmatureError:
            self._draw(before)  # a refused reset leaves no trace
            raise
        self.env.appearance_changed()
        return observation, {**info, "randomisation": self.drawn}

    def restore_nominal(self) -> None:
        """Make the model what it was when it was wrapped."""
        self._draw(None)
        self.env.appearance_changed()

    def _draw(self, seed: int | None) -> None:
        self._seed, self.drawn = seed, {} if seed is None else {"seed": seed}
        for part in self._parts:
            part.restore()
            if seed is not None:
                self.drawn |= part.draw(seed)


def _any(collides: np.ndarray, model: mujoco.MjModel, body: int) -> bool:
    return bool(collides[model.geom_bodyid == body].any())


def _factors(seed: int, stream: int, bounds: tuple[float, float], count: int) -> list[float]:
    return np.random.default_rng([seed, stream]).uniform(*bounds, count).tolist()
