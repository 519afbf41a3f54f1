"""What every arm keeps to, as tests: derive a class whose name begins with Test and override `make`."""

import tracemalloc
from collections.abc import Iterator

import numpy as np
import pytest

from robot.contract import Arm
from robot.errors import DeviceError

LED = [3, 5]
"""Joints that tests move where targets are joints'."""
RAD_PER_M = 2.0
MEASURED = ("q", "dq", "ee_pos", "ee_rot6d", "gripper")


class ArmConformance:
    """Tests of `robot.contract.Arm`. They move the tool by some centimetres."""

    follow_s = 1.5
    """Time that the arm has for a way of 3 cm [s]."""
    near_m = 0.005
    """How near it comes to its target [m]."""
    still_radps = 0.05
    """Joint speeds below this are rest."""

    def make(self) -> Arm:
        """A new arm, not yet open."""
        raise NotImplementedError(f"{type(self).__name__} overrides make().")

    @pytest.fixture
    def arm(self) -> Iterator[Arm]:
        """An arm at its start pose, closed after the test."""
        arm = self.make()
        arm.open()
        arm.recover(seed=1)
        yield arm
        arm.close()

    def test_specs_say_what_is_needed(self, arm: Arm) -> None:
        """The state holds what safety reads and every observation of the environment; the target fits its space."""
        keys = [spec.key for spec in arm.specs.state.specs]
        assert set(MEASURED) <= set(keys)
        assert set(arm.specs.environment.observation) <= set(keys)
        assert len(keys) == len(set(keys))
        n = len(arm.specs.state.views(np.zeros(arm.specs.state.size))["q"])
        assert arm.specs.target.shape == {"ee_pose": (10,), "joint_reference": (3 * n + 1,)}[arm.specs.target_space]
        assert arm.specs.rate_hz > 0
        assert len(arm.specs.model_hash) >= 16

    def test_a_closed_arm_does_not_answer(self) -> None:
        """Neither before it is opened nor after it is closed; closing twice is safe."""
        arm = self.make()
        state = np.zeros(arm.specs.state.size)
        with pytest.raises(DeviceError):
            arm.read(state)
        arm.open()
        arm.read(state)
        arm.close()
        arm.close()
        with pytest.raises(DeviceError):
            arm.read(state)

    def test_measures_a_whole_valid_state(self, arm: Arm) -> None:
        """Every element is written, finite, and fits the spec of its key."""
        state = np.full(arm.specs.state.size, np.nan)
        arm.read(state)
        views = arm.specs.state.views(state)
        for spec in arm.specs.state.specs:
            spec.validate(views[spec.key].astype(spec.dtype))
        x, y = views["ee_rot6d"][:3], views["ee_rot6d"][3:]
        np.testing.assert_allclose([x @ x, y @ y, x @ y], [1, 1, 0], atol=1e-6)

    def test_opening_and_reading_do_not_move_it(self, arm: Arm) -> None:
        """Without a target the tool stays where it is."""
        before = self._run(arm, 0.02)["ee_pos"].copy()
        after = self._run(arm, 0.5)["ee_pos"]
        np.testing.assert_allclose(after, before, atol=self.near_m)

    def test_follows_a_target(self, arm: Arm) -> None:
        """Three centimetres up, or some joints by hundredths of a radian."""
        before = self._run(arm, 0.0)
        wanted = {key: before[key].copy() for key in ("q", "ee_pos")}
        views = self._lead(arm, self.follow_s, 0.03)
        if arm.specs.target_space == "ee_pose":
            wanted["ee_pos"][2] += 0.03
            np.testing.assert_allclose(views["ee_pos"], wanted["ee_pos"], atol=self.near_m)
        else:
            wanted["q"][LED] += 0.03 * RAD_PER_M
            np.testing.assert_allclose(views["q"], wanted["q"], atol=self.near_m)

    def test_stop_means_rest(self, arm: Arm) -> None:
        """Stopped in motion, it rests when `stop` returns, short of its target, and stays there."""
        moving = self._lead(arm, 0.1, 0.05, way_s=0.2)
        assert np.abs(moving["dq"]).max() > self.still_radps
        height = moving["ee_pos"][2]
        arm.stop()
        stopped = self._run(arm, 0.0)
        assert np.abs(stopped["dq"]).max() <= 2 * self.still_radps
        where = stopped["ee_pos"].copy()
        assert abs(where[2] - height) < 0.045
        later = self._run(arm, 0.5)
        np.testing.assert_allclose(later["ee_pos"], where, atol=self.near_m)

    def test_recovering_moves_no_real_arm(self, arm: Arm) -> None:
        """It stays where it is; a simulated one goes to its start pose and begins equal scenes from equal seeds."""
        start = self._run(arm, 0.0)["ee_pos"].copy()
        self._lead(arm, self.follow_s, 0.03)
        away = self._run(arm, 0.0)["ee_pos"].copy()
        arm.recover(seed=1)
        where = start if arm.specs.is_simulated else away
        np.testing.assert_allclose(self._run(arm, 0.0)["ee_pos"], where, atol=self.near_m)
        if arm.specs.is_simulated:
            scenes = []
            for seed in (5, 6, 5):
                arm.recover(seed=seed)
                state = np.zeros(arm.specs.state.size)
                arm.read(state)
                scenes.append(state)
            np.testing.assert_array_equal(scenes[0], scenes[2])

    def test_reading_and_writing_leave_nothing_behind(self, arm: Arm) -> None:
        """No memory grows in the loop: the collector is off while it runs."""
        target, state = self._here(arm), np.zeros(arm.specs.state.size)
        for _ in range(20):
            arm.read(state)
            arm.write(target)
        tracemalloc.start()
        before = tracemalloc.get_traced_memory()[0]
        for _ in range(2000):
            arm.read(state)
            arm.write(target)
        grown = tracemalloc.get_traced_memory()[0] - before
        tracemalloc.stop()
        # Some kilobytes come and go; a leak would be one object of 32 bytes a cycle or more.
        assert grown < 2000 * 32

    def _here(self, arm: Arm) -> np.ndarray:
        """A target that keeps the arm where it is."""
        views = self._run(arm, 0.0)
        if arm.specs.target_space == "ee_pose":
            return np.concatenate([views["ee_pos"], views["ee_rot6d"], [0.0]])
        return np.concatenate([views["q"], np.zeros(2 * len(views["q"]) + 1)])

    def _lead(self, arm: Arm, time_s: float, way_m: float, way_s: float = 1.0) -> dict[str, np.ndarray]:
        """Targets for a while: a pose that far up at once, or two joints on their way there in `way_s`.

        Joints follow p(u) = 10u³ - 15u⁴ + 6u⁵, which rests at both ends (Flash and Hogan 1985).
        """
        target, state = self._here(arm), np.zeros(arm.specs.state.size)
        n = len(arm.specs.state.views(state)["q"])
        start = target[:n].copy()
        if arm.specs.target_space == "ee_pose":
            target[2] += way_m
        for cycle in range(max(1, round(time_s * arm.specs.rate_hz))):
            if arm.specs.target_space == "joint_reference":
                u = min(1.0, cycle / (way_s * arm.specs.rate_hz))
                way = way_m * RAD_PER_M
                parts = (
                    u**3 * (10 - 15 * u + 6 * u**2),
                    30 * u**2 * (1 - u) ** 2 / way_s,
                    60 * u * (1 - u) * (1 - 2 * u) / way_s**2,
                )
                for k, part in enumerate(parts):
                    target[k * n + np.array(LED)] = way * part + (start[LED] if k == 0 else 0.0)
            arm.read(state)
            arm.write(target)
        return arm.specs.state.views(state)

    def _run(self, arm: Arm, time_s: float, target: np.ndarray | None = None) -> dict[str, np.ndarray]:
        """Let the loop run for a while, at least one cycle; what was measured last."""
        state = np.zeros(arm.specs.state.size)
        for _ in range(max(1, round(time_s * arm.specs.rate_hz))):
            arm.read(state)
            if target is not None:
                arm.write(target)
        return arm.specs.state.views(state)
