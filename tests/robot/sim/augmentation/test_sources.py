import dataclasses
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from robot.control.action_spaces import joints
from robot.episodes.episode import TIME, Header
from robot.episodes.log import EpisodeWriter
from robot.errors import EpisodeError
from robot.loop import rollout
from robot.sim.augmentation.demonstration import ENVIRONMENT_STATE, STATE
from robot.sim.augmentation.segments import cut
from robot.sim.augmentation.sources import check_header, sources
from robot.sim.augmentation.subtasks import declaration
from tests.robot.sim.augmentation.fakes import Picker, TableWorld, record_demonstrations, specs

CUT = partial(cut, declaration=declaration("lift"))


def write(path: Path, world: TableWorld, seed: int = 0, claimed: int | None = None) -> None:
    header = Header(world.specs, "expert", seed=seed if claimed is None else claimed, quality="clean")
    with EpisodeWriter(path, header) as writer:
        rollout(world, Picker(world), seed, None, writer.write)
        writer.finish()


def same(some, others) -> None:
    for one, other in zip(some, others, strict=True):
        assert (one.name, one.seed, one.quality) == (other.name, other.seed, other.quality)
        for segment, twin in zip(one.segments, other.segments, strict=True):
            for field in ("reference", "moving", "goals", "gripper", "leading"):
                np.testing.assert_array_equal(getattr(segment, field), getattr(twin, field))


def test_demonstrations_are_read_with_where_their_objects_were(tmp_path):
    record_demonstrations(tmp_path, 3)
    found = sources(tmp_path, TableWorld(), CUT)
    assert [(one.name, one.seed, one.quality) for one in found] == [
        (f"episode-{number:06d}.mcap", number, "clean") for number in range(3)
    ]
    for one in found:
        world = TableWorld()
        world.reset(seed=one.seed)
        np.testing.assert_allclose(one.scene["cube"], world.cube, atol=1e-6)


def test_where_objects_were_is_found_by_playing_again_where_the_log_does_not_say(tmp_path):
    record_demonstrations(tmp_path / "seen", 2)
    record_demonstrations(tmp_path / "unseen", 2, sees=False)
    same(*(sources(tmp_path / name, TableWorld(), CUT) for name in ("seen", "unseen")))


def test_an_episode_that_does_not_repeat_is_refused(tmp_path):
    write(tmp_path / "episode-000000.mcap", TableWorld(sees=False), seed=3, claimed=0)
    with pytest.raises(EpisodeError, match=r"where its objects were, and does not repeat here: at step 0"):
        sources(tmp_path, TableWorld(), CUT)


def test_what_did_not_succeed_or_cannot_be_cut_is_left_out_with_its_reason(tmp_path, capsys):
    record_demonstrations(tmp_path, 1)
    write(tmp_path / "episode-000001.mcap", TableWorld(slippery=True), seed=1)
    found = sources(tmp_path, TableWorld(), CUT)
    assert [one.name for one in found] == ["episode-000000.mcap"]
    assert "episode-000001.mcap is left out: it did not succeed." in capsys.readouterr().err

    def never(moves):
        raise EpisodeError("the cube is never raised")

    with pytest.raises(EpisodeError, match=r"No episode of 2 in .* can be used; the reasons are above"):
        sources(tmp_path, TableWorld(), never)
    assert "episode-000000.mcap is left out: the cube is never raised." in capsys.readouterr().err


def test_foreign_episodes_are_refused_in_words():
    def check(header: Header) -> None:
        check_header(Path("x.mcap"), header, specs())

    check(Header(specs(), "expert"))
    check(Header(specs(sees=False), "expert"))
    with pytest.raises(EpisodeError, match=r"recorded on a clock of time, as of a real robot: .*simulation"):
        check(Header(specs(), "bridge", clock=TIME))
    with pytest.raises(EpisodeError, match=r"is of another world: robot is other, expected table\. Give env\."):
        check(Header(specs(robot="other"), "expert"))
    with pytest.raises(EpisodeError, match=r"dt_s is 0\.1, expected 0\.05"):
        check(Header(specs(dt_s=0.1), "expert"))
    with pytest.raises(EpisodeError, match=r"shows 'Wipe the table clean\.', .*Add env=wipe\."):
        check(Header(specs(task="Wipe the table clean."), "expert"))
    with pytest.raises(EpisodeError, match=r"shows 'Dance\.'.*none of the simulated tasks"):
        check(Header(specs(task="Dance."), "expert"))


def test_a_world_without_a_tool_to_move_is_refused(tmp_path):
    world = TableWorld()
    world.specs = dataclasses.replace(world.specs, action=joints(7), action_space="joint_position")
    with pytest.raises(EpisodeError, match=r"acts in ee_delta or ee_pose, here actions are joint_position .*OSC_POSE"):
        sources(tmp_path, world, CUT)
    world = TableWorld()
    seen = {STATE: dataclasses.replace(world.specs.observation[STATE], names=tuple(map(str, range(11))))}
    seen[ENVIRONMENT_STATE] = world.specs.observation[ENVIRONMENT_STATE]
    world.specs = dataclasses.replace(world.specs, observation=seen)
    with pytest.raises(EpisodeError, match=r"moves one arm by the pose of its tool, .*: 0, 1, 2 \.\.\. Take"):
        sources(tmp_path, world, CUT)


def test_an_empty_folder_and_a_damaged_file_are_named(tmp_path):
    with pytest.raises(EpisodeError, match=r"holds no episodes\. Record some with `armature record` first"):
        sources(tmp_path, TableWorld(), CUT)
    (tmp_path / "episode-000000.mcap").write_bytes(b"\x89MCAP0\r\n")
    with pytest.raises(EpisodeError, match=r"episode-000000\.mcap"):
        sources(tmp_path, TableWorld(), CUT)
