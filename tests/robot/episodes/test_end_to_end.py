"""Episodes and datasets as a user has them: one verb after the other, typed as they would be."""

import dataclasses
import json
import re

import numpy as np
import pytest

from robot.cli import main
from robot.episodes import record
from robot.episodes.collecting import Demonstration
from robot.episodes.dataset import Dataset
from robot.episodes.folder import discarded, finished
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.loading.batches import Batches, Form
from robot.episodes.loading.loader import Loader
from robot.episodes.loading.mixture import Mixture
from robot.episodes.log_reader import EpisodeReader
from robot.sim.config import EnvConfig
from robot.specs import ArraySpec
from tests.robot.episodes.fakes import STATE, PointPusher, PointWorld, seeded_noise

FRONT = "observation.images.front"
SHAPE = (32, 48, 3)


class FarPointWorld(PointWorld):
    """No episode is over in a step or two."""

    def __init__(self) -> None:
        super().__init__(horizon=20)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed, options=options)
        self._x += 1.0 if self._x > 0 else -1.0
        return self._observe(), {"success": False}


class SeenPointWorld(FarPointWorld):
    """The point's place is the grey of the left half of the picture, and the step that of the right half."""

    def __init__(self) -> None:
        super().__init__()
        seen = {**self.specs.observation, FRONT: ArraySpec(FRONT, SHAPE, "uint8", 0, 255)}
        self.specs = dataclasses.replace(self.specs, observation=seen)

    def _observe(self):
        picture = np.zeros(SHAPE, np.uint8)
        picture[:, :24] = np.uint8(np.clip(128 + 60 * self._x, 0, 255))
        picture[:, 24:] = 12 * self._steps
        return {**super()._observe(), FRONT: picture}


def point(config: EnvConfig, quality: str) -> Demonstration:
    world = FarPointWorld()
    return Demonstration(world, PointPusher(world.specs), seeded_noise)


def seen_point(config: EnvConfig, quality: str) -> Demonstration:
    world = SeenPointWorld()
    return Demonstration(world, PointPusher(world.specs), seeded_noise)


class Shell:
    """Types commands and keeps what they said."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: object, status: int = 0) -> str:
        self._capsys.readouterr()
        got = main([str(word) for word in words])
        said = self._capsys.readouterr()
        text = said.out + said.err
        assert got == status, f"armature {' '.join(map(str, words))} -> {got}:\n{text}"
        assert "Traceback" not in text, text
        return text


@pytest.fixture
def armature(capsys, monkeypatch, tmp_path) -> Shell:
    monkeypatch.setitem(record.SOURCES, "point", point)
    monkeypatch.setitem(record.SOURCES, "seen_point", seen_point)
    monkeypatch.setenv("ARMATURE_CACHE", str(tmp_path / "cache"))
    return Shell(capsys)


def equal_rows(one: LeRobotSource, other: LeRobotSource, numbers: list[int] | None = None) -> None:
    """Episode k of `other` holds to the bit what episode `numbers[k]` of `one` does."""
    numbers = list(range(len(one))) if numbers is None else numbers
    assert len(other) == len(numbers)
    for mine, number in enumerate(numbers):
        first, second = one.read(number), other.read(mine)
        assert first.task == second.task
        for key, column in first.columns.items():
            np.testing.assert_array_equal(second.columns[key], column, err_msg=key)
        for key, pictures in first.pictures.items():
            np.testing.assert_array_equal(np.stack(list(second.pictures[key])), np.stack(list(pictures)), err_msg=key)


def test_from_a_recording_to_batches(armature, tmp_path):
    """Pictures without loss, so that every format must give back what was recorded."""
    episodes, dataset = tmp_path / "episodes", tmp_path / "dataset"
    said = armature("record", "source=seen_point", "episodes=5", "workers=1", "codec=png", f"out={episodes}")
    assert f"{episodes}: 5 episodes" in said
    listed = armature("episodes", "list", f"episodes={episodes}")
    assert "5 episodes" in listed
    assert "5 succeeded (100%)" in listed

    said = armature("episodes", "label", f"episodes={episodes}", "numbers=[1]", "success=false", "note='it slipped'")
    assert "000001: success yes -> no, note: it slipped" in said
    said = armature("episodes", "discard", f"episodes={episodes}", "numbers=[3]")
    assert "Put aside: 3." in said
    assert [path.name for path in discarded(episodes)] == ["episode-000003.mcap"]
    assert "1 labelled afterwards" in armature("episodes", "list", f"episodes={episodes}")
    said = armature("build", f"episodes={episodes}", f"out={dataset}", "codec=png")
    assert "1 of the episodes ended without success" in said
    assert f"{dataset}: 4 episodes" in said
    source = LeRobotSource(dataset)
    for number, path in enumerate(finished(episodes)):
        episode, rows = EpisodeReader(path).read(), source.read(number)
        np.testing.assert_array_equal(rows.columns[STATE], episode.channels["/observation/state"].values)
        np.testing.assert_array_equal(rows.columns["action"], episode.channels["/action/device"].values)
        shown = np.stack(list(rows.pictures[FRONT]))
        np.testing.assert_array_equal(shown[:, 0, -1, 0], 12 * np.arange(len(rows)))
        assert rows.columns["next.success"][-1] == episode.result.success_final
    assert [bool(source.read(number).columns["next.success"][-1]) for number in range(4)] == [True, False, True, True]
    assert "nothing wrong" in armature("dataset", "validate", f"dataset={dataset}")
    assert re.search(r"success +3 of 4 \(75%\)", armature("dataset", "info", f"dataset={dataset}"))

    batches = Batches.of(Mixture.of(Dataset.open(dataset)), Form(2, 4, 8), 0)
    with Loader(batches) as loader:
        for _ in range(4):
            batch = next(loader)
            assert batch[FRONT].shape == (8, 2, *SHAPE)
            grey = np.uint8(np.clip(128 + 60 * batch[STATE][:, :, 0].astype(np.float64), 0, 255))
            off = batch[FRONT][:, :, 0, 0, 0].astype(int) - grey
            assert np.abs(off).max() <= 1, "every picture is that of its row"

    said = armature("train", f"dataset={dataset}", f"out={tmp_path / 'run'}", "steps=1", status=2)
    assert "armature train: Observation 'observation.images.front' has shape" in said


@pytest.mark.slow
def test_every_format_gives_back_what_was_recorded(armature, tmp_path):
    """Pictures without loss, through every format and through a split and a merge."""
    episodes, dataset = tmp_path / "episodes", tmp_path / "dataset"
    armature("record", "source=seen_point", "episodes=4", "workers=1", "codec=png", f"out={episodes}")
    armature("episodes", "show", f"episodes={episodes}", "number=0")
    assert len(list((episodes / "shown").glob("*.png"))) == 2
    armature("episodes", "quality", f"episodes={episodes}", f"out={tmp_path / 'quality'}")
    assert json.loads((tmp_path / "quality/quality.json").read_text())
    armature("build", f"episodes={episodes}", f"out={dataset}", "codec=png")
    source = LeRobotSource(dataset)

    armature("convert", f"source={dataset}", f"out={tmp_path / 'demo.hdf5'}")
    armature("convert", f"source={tmp_path / 'demo.hdf5'}", f"out={tmp_path / 'back'}", "codec=png")
    equal_rows(source, LeRobotSource(tmp_path / "back"))
    assert "nothing wrong" in armature("dataset", "validate", f"dataset={tmp_path / 'back'}")

    parts = tmp_path / "parts"
    armature("dataset", "split", f"dataset={dataset}", f"out={parts}", "parts={odd:[1,3],even:[0,2]}")
    armature("dataset", "merge", f"datasets=[{parts / 'even'},{parts / 'odd'}]", f"out={tmp_path / 'merged'}")
    equal_rows(source, LeRobotSource(tmp_path / "merged"), [0, 2, 1, 3])
    assert "nothing wrong" in armature("dataset", "validate", f"dataset={tmp_path / 'merged'}")
    armature("dataset", "frames", f"dataset={dataset}")


@pytest.mark.slow
def test_more_episodes_and_labels_reach_a_dataset_that_is_there(armature, tmp_path):
    episodes, dataset = tmp_path / "episodes", tmp_path / "dataset"
    recorded = ["record", "source=point", "workers=1", f"out={episodes}"]
    built = ["build", f"episodes={episodes}", f"out={dataset}"]
    armature(*recorded, "episodes=2")
    armature(*built)
    armature("episodes", "label", f"episodes={episodes}", "numbers=[0]", "success=false")
    armature("episodes", "discard", f"episodes={episodes}", "numbers=[1]")
    armature(*recorded, "episodes=3")
    assert "3 episodes" in armature(*built)
    ends = [bool(LeRobotSource(dataset).read(number).columns["next.success"][-1]) for number in range(3)]
    assert ends == [False, True, True]
    assert "2 episodes" in armature(*built, "keep=success")
    armature("episodes", "discard", f"episodes={episodes}", "numbers=[1]", "undo=true")
    assert "4 episodes" in armature(*built)
    assert "nothing wrong" in armature("dataset", "validate", f"dataset={dataset}")


@pytest.mark.slow
def test_training_goes_on_where_it_ended(armature, tmp_path):
    episodes, dataset, run = (tmp_path / name for name in ("episodes", "dataset", "run"))
    armature("record", "source=point", "episodes=3", "workers=1", f"out={episodes}")
    armature("build", f"episodes={episodes}", f"out={dataset}")
    armature("dataset", "split", f"dataset={dataset}", f"out={tmp_path}", "parts={a:[0],b:[1,2]}")
    mixed = f"dataset={{{tmp_path / 'a'}:0.5,{tmp_path / 'b'}:0.5}}"
    train = ["train", mixed, f"out={run}", "batch_size=4", "save_every=2", "log_every=1", "sampler=return"]
    assert f"Trained {run}" in armature(*train, "steps=2")
    armature(*train, "steps=3", status=1)  # the schedule of the learning rate is for so many steps
    assert f"Trained {run}" in armature(*train, "steps=2")


@pytest.mark.slow
def test_mistakes_are_one_sentence(armature, tmp_path):
    episodes, dataset = tmp_path / "episodes", tmp_path / "dataset"
    nowhere = tmp_path / "nowhere"
    armature("record", "source=point", "episodes=1", "workers=1", f"out={episodes}")
    armature("build", f"episodes={episodes}", f"out={dataset}")
    for words in (
        ("episodes", "list", f"episodes={nowhere}"),
        ("episodes", "show", f"episodes={episodes}", "number=7"),
        ("episodes", "label", f"episodes={episodes}", "numbers=[7]", "success=true"),
        ("episodes", "discard", f"episodes={episodes}", "numbers=[7]"),
        ("episodes", "replay", f"episodes={episodes}", "number=7"),
        ("episodes", "quality", f"episodes={nowhere}"),
        ("episodes", "augment", f"episodes={nowhere}", f"out={tmp_path / 'new'}"),
        ("episodes", "recover", f"episodes={nowhere}"),
        ("build", f"episodes={nowhere}", f"out={tmp_path / 'x'}"),
        ("dataset", "info", f"dataset={nowhere}"),
        ("dataset", "info", f"dataset={episodes}"),
        ("dataset", "validate", f"dataset={nowhere}"),
        ("dataset", "stats", f"dataset={nowhere}"),
        ("dataset", "merge", f"datasets=[{dataset},{nowhere}]", f"out={tmp_path / 'x'}"),
        ("dataset", "merge", f"datasets=[{dataset},{dataset}]", f"out={dataset}"),
        ("dataset", "split", f"dataset={dataset}", f"out={tmp_path}", "parts={a:[0,99]}"),
        ("convert", f"source={nowhere}", f"out={tmp_path / 'x'}"),
        ("train", f"dataset={nowhere}", f"out={tmp_path / 'run'}"),
    ):
        said = armature(*words, status=1)
        lines = [line for line in said.splitlines() if line.strip()]
        verb = " ".join(words[:2]) if words[0] in ("episodes", "dataset") else words[0]
        assert lines[-1].startswith(f"armature {verb}: "), (words, said)
        assert lines[-1].endswith((".", ")", "`")), (words, said)
    assert not nowhere.exists()
    assert len(LeRobotSource(dataset)) == 1


@pytest.mark.slow
def test_lift_with_cameras_from_the_recording_to_a_policy(armature, tmp_path):
    episodes, dataset = tmp_path / "episodes", tmp_path / "dataset"
    cameras = ["env.cameras.names=[agentview,robot0_eye_in_hand]", "env.cameras.height=64", "env.cameras.width=64"]
    armature("record", "env=lift", "quality=clean", "episodes=4", *cameras, f"out={episodes}")
    assert "to the bit" in armature("episodes", "replay", f"episodes={episodes}", "number=2")
    armature("episodes", "label", f"episodes={episodes}", "numbers=[1]", "success=false")
    new = tmp_path / "new"
    said = armature("episodes", "augment", "env=lift", f"episodes={episodes}", f"out={new}", "count=3", *cameras)
    assert "episode-000001.mcap is left out: it did not succeed." in said
    assert "3 episodes" in said
    assert "Ended with success" in armature("episodes", "replay", f"episodes={new}", "number=0")

    assert "7 episodes" in armature("build", f"episodes=[{episodes},{new}]", f"out={dataset}")
    assert "nothing wrong" in armature("dataset", "validate", f"dataset={dataset}")
    source = LeRobotSource(dataset)
    for number, path in enumerate(finished(episodes)):
        logged, rows = EpisodeReader(path).read(), source.read(number)
        for key, pictures in rows.pictures.items():
            ours = np.stack(list(pictures)).astype(int)
            theirs = np.stack(list(logged.pictures["/" + key.replace(".", "/")].pictures))
            assert np.abs(ours - theirs).mean(axis=(1, 2, 3)).max() < 4.0, "frames equal rows, up to compression"
    armature("convert", f"source={episodes}", f"out={tmp_path / 'states.hdf5'}", "states=replay")
    armature("convert", f"source={tmp_path / 'states.hdf5'}", f"out={tmp_path / 'back'}")
    assert "nothing wrong" in armature("dataset", "validate", f"dataset={tmp_path / 'back'}")
    armature("dataset", "stats", f"dataset={dataset}", f"out={tmp_path / 'stats'}")
    assert {"agentview.png", "histograms.png"} <= {path.name for path in (tmp_path / "stats").iterdir()}

    with Loader(Batches.of(Mixture.of(Dataset.open(dataset)), Form(2, 16, 8), 0), workers=2) as loader:
        batch = next(loader)
        assert batch["observation.images.agentview"].shape == (8, 2, 64, 64, 3)
        assert 20 < batch["observation.images.agentview"].mean() < 235

    vectors, run = tmp_path / "vectors", tmp_path / "run"
    armature("record", "env=lift", "quality=clean", "episodes=3", f"out={tmp_path / 'blind'}")
    armature("build", f"episodes={tmp_path / 'blind'}", f"out={vectors}")
    armature("train", f"dataset={vectors}", f"out={run}", "steps=4", "batch_size=8", "save_every=4")
    said = armature("evaluate", "env=lift", f"checkpoint={run}", "episodes=1", "workers=1", "video_episodes=0")
    assert "success" in said
