import json
from pathlib import Path

import numpy as np
import pytest

from robot.episodes.build import BuildConfig, build, main
from robot.episodes.dataset import Dataset
from robot.episodes.episode import topic_of
from robot.episodes.log_reader import EpisodeReader
from robot.errors import EpisodeError, UnknownNameError
from tests.robot.episodes.fakes import ENVIRONMENT_STATE, STATE, point_specs
from tests.robot.episodes.test_log import write_episode


def files(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


@pytest.fixture
def episodes(tmp_path) -> Path:
    for number, steps in enumerate((4, 2, 7)):
        write_episode(tmp_path / "episodes" / f"episode-{number:06d}.mcap", steps=steps, seed=number, attempt=number)
    return tmp_path / "episodes"


def run(episodes: Path, **changes) -> Dataset:
    values = {"episodes": str(episodes), "out": str(episodes.parent / "dataset"), "label": "device"}
    return build(BuildConfig(**{**values, **changes}))


def test_rows_are_the_steps_of_the_episodes(episodes):
    built = run(episodes)
    dataset = Dataset.open(episodes.parent / "dataset")
    assert dataset.identity == built.identity
    assert dataset.episode_lengths.tolist() == [4, 2, 7]
    assert dataset.specs == point_specs()
    for number, start in enumerate(dataset.episode_starts):
        episode = EpisodeReader(episodes / f"episode-{number:06d}.mcap").read()
        rows = slice(start, start + dataset.episode_lengths[number])
        for key in (STATE, ENVIRONMENT_STATE):
            np.testing.assert_array_equal(dataset.columns[key][rows], episode.channels[topic_of(key)].values)
        np.testing.assert_array_equal(dataset.columns["action"][rows], episode.channels["/action/device"].values)
        for column, name in enumerate(("reward", "success", "terminated", "truncated")):
            expected = episode.channels["/step"].values[:, column].astype(np.float32)
            np.testing.assert_array_equal(dataset.columns[f"next.{name}"][rows], expected)


def test_the_label_can_be_what_was_sent(episodes):
    device, commanded = run(episodes), run(episodes, label="commanded")
    expected = EpisodeReader(episodes / "episode-000000.mcap").read().channels["/action/commanded"].values
    np.testing.assert_array_equal(commanded.columns["action"][:4], expected)
    assert device.identity != commanded.identity
    with pytest.raises(UnknownNameError, match="Unknown label 'applied'"):
        run(episodes, label="applied")


def test_equal_episodes_give_equal_bytes(episodes):
    run(episodes)
    run(episodes, out=str(episodes.parent / "again"))
    assert files(episodes.parent / "dataset") == files(episodes.parent / "again")


def test_the_dataset_says_where_it_comes_from(episodes):
    run(episodes)
    armature = json.loads((episodes.parent / "dataset/meta/armature.json").read_text())
    assert armature["label"] == "device"
    assert armature["episodes"][2] == {
        "file": "episode-000002.mcap",
        "seed": 2,
        "source": "expert",
        "quality": "",
    }


def test_the_verb_prints_what_it_wrote_and_what_it_did_not_use(episodes, capsys):
    (episodes / "episode-000003.mcap.part").write_bytes(b"half")
    (episodes / "notes.mcap").write_bytes(b"other")
    out = episodes.parent / "dataset"
    assert main([f"episodes={episodes}", f"out={out}"]) == 0
    shown = capsys.readouterr()
    assert shown.out.startswith(f"{out}: 3 episodes, 13 frames at 20 Hz, ")
    assert "episode-000003.mcap.part was interrupted and is not used" in shown.err
    assert "notes.mcap is not named like an episode" in shown.err
    assert "2 of the 3 episodes ended without success" in shown.err


def test_an_empty_or_missing_folder_is_refused(tmp_path):
    with pytest.raises(EpisodeError, match=r"holds no finished episodes\. Record some"):
        run(tmp_path / "nothing")


def test_a_truncated_episode_is_named_and_the_old_dataset_stays(episodes):
    run(episodes)
    before, path = files(episodes.parent / "dataset"), episodes / "episode-000001.mcap"
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(EpisodeError, match=r"episode-000001\.mcap was cut short"):
        run(episodes)
    assert files(episodes.parent / "dataset") == before


@pytest.mark.parametrize(
    ("specs", "said"),
    [
        (point_specs(robot="other"), "robot is other, expected point"),
        (point_specs(names=("x", "w")), "observation.state: names is"),
        (point_specs(dt_s=0.1), "dt_s is 0.1, expected 0.05"),
    ],
)
def test_mixed_episodes_are_refused_by_name(episodes, specs, said):
    write_episode(episodes / "episode-000003.mcap", specs=specs)
    with pytest.raises(EpisodeError, match=rf"episode-000003\.mcap does not fit .*episode-000000\.mcap: {said}"):
        run(episodes)
