import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest

from robot.cli import main
from robot.episodes.care import stats
from robot.episodes.formats import lerobot_writer
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.specs import ArraySpec
from tests.robot.episodes.care import damage
from tests.robot.episodes.care.whole import FRONT, LENGTHS, STATE, episode, source


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("info") / "dataset"
    lerobot_writer.write(source(), path)
    return path


def test_info_tells_what_is_in_it(folder, capsys):
    assert main(["dataset", "info", f"dataset={folder}"]) == 0
    text = capsys.readouterr().out
    for line in (
        "robot        disc, actions ee_delta, 10 frames per second",
        "episodes     3, 81 frames, 8.1 s",
        "lengths      24 (episode 0) to 30 (episode 1), mean 27.0",
        "task         'push disc 0': 2 episodes",
        "x y [m m]",
        "uint8    48 x 64 x 3    h264",
        "success      3 of 3 (100%)",
        "recorded by  expert 3",
        "quality      good 3",
        "subsets      train 3, first 1",
    ):
        assert line in text, (line, text)


def test_info_as_json_has_the_same_numbers(folder, capsys):
    assert main(["dataset", "info", f"dataset={folder}", "json=true"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["episodes"], found["frames"], found["duration_s"]) == (3, 81, 8.1)
    assert found["longest"] == {"episode": 1, "frames": 30}
    assert found["success"] == {"episodes": 3, "of": 3}
    features = {feature["key"]: feature for feature in found["features"]}
    assert features[STATE] == {"key": STATE, "dtype": "float32", "shape": [2], "names": ["x", "y"], "unit": "m m"}
    assert features[FRONT]["encoding"]["codec"] == "h264"
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6
    assert sum(found["megabytes"].values()) == pytest.approx(size, abs=0.01)


def test_success_is_known_from_origins_where_no_column_says_it(tmp_path, capsys):
    made = source((4, 5, 6), cameras=())
    for key in list(made.schema.extras):
        made.schema.extras.pop(key)
    for number in range(3):
        made.read(number).origin["success"] = number > 0
    lerobot_writer.write(made, tmp_path / "dataset")
    assert main(["dataset", "info", f"dataset={tmp_path / 'dataset'}"]) == 0
    assert "success      2 of 3 (67%)" in capsys.readouterr().out


def test_info_of_a_foreign_one_says_how_keys_were_called(folder, tmp_path, capsys):
    shutil.copytree(folder, tmp_path / "foreign")
    damage.as_foreign(tmp_path / "foreign")

    def rename(info: dict) -> None:
        info["features"]["observation.image"] = info["features"].pop(FRONT)

    damage.edit_json(tmp_path / "foreign/meta/info.json", rename)
    table = tmp_path / "foreign" / damage.EPISODES
    old = pq.read_table(table)
    pq.write_table(old.rename_columns([name.replace(FRONT, "observation.image") for name in old.column_names]), table)
    (tmp_path / "foreign/videos" / FRONT).rename(tmp_path / "foreign/videos/observation.image")
    assert main(["dataset", "info", f"dataset={tmp_path / 'foreign'}"]) == 0
    text = capsys.readouterr().out
    assert "not written by Armature" in text
    assert "observation.images.image" in text
    assert "(stored as observation.image)" in text


def test_the_table_and_the_plots(folder, tmp_path, capsys):
    assert main(["dataset", "stats", f"dataset={folder}", f"out={tmp_path / 'plots'}", "pictures=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == list(stats.SHOWN)
    row = next(line for line in lines if line.startswith(f"{STATE} x [m]"))
    state = np.concatenate([episode(number, length).columns[STATE][:, 0] for number, length in enumerate(LENGTHS)])
    wanted = [state.min(), *np.quantile(state, [0.01, 0.5, 0.99]), state.max(), state.mean(), state.std()]
    np.testing.assert_allclose([float(cell) for cell in row.split("[m]")[1].split()], wanted, rtol=1e-3, atol=1e-5)
    names = {"histograms.png", "lengths.png", "trajectories.png", "front.png", "wrist.png"}
    assert {path.name for path in (tmp_path / "plots").iterdir()} == names
    for name in names:
        picture = cv2.imread(str(tmp_path / "plots" / name))
        assert picture is not None
        assert min(picture.shape[:2]) > 200
        assert picture.std() > 10  # something is drawn


def test_the_contact_sheet_shows_pictures_of_the_dataset(folder):
    figure = stats.plots.contact_sheet(LeRobotSource(folder), FRONT, 3)
    shown = {axis.get_title(): axis.images[0].get_array() for axis in figure.axes if axis.images}
    assert list(shown) == ["mean of 81 frames", "episode 0 frame 0", "episode 1 frame 14", "episode 2 frame 26"]
    assert np.abs(shown["episode 1 frame 14"].astype(int) - episode(1, 30).pictures[FRONT][14]).mean() < 6
    every = np.concatenate([episode(n, length).pictures[FRONT] for n, length in enumerate(LENGTHS)])
    assert np.abs(shown["mean of 81 frames"].astype(float) - every.mean(axis=0)).mean() < 4


def test_values_that_are_not_finite_are_counted_and_left_out(tmp_path):
    made = source((12,))
    made.read(0).columns["next.reward"][3:5] = np.nan
    lerobot_writer.write(made, tmp_path / "dataset")
    found = LeRobotSource(tmp_path / "dataset")
    columns = stats.read_columns(found)
    row = next(line for line in stats.table(found, columns) if line.startswith("next.reward"))
    assert row.endswith("2 not finite")
    assert "nan" not in row
    assert stats.draw(found, columns, tmp_path / "plots", 0)


def test_elements_are_called_by_names_places_and_units():
    assert stats.element_names(ArraySpec("a", (2,), names=("x", "y"), unit="m rad")) == ["a x [m]", "a y [rad]"]
    assert stats.element_names(ArraySpec("a", (2, 2), unit="N")) == [f"a[{i},{j}] [N]" for i in (0, 1) for j in (0, 1)]
    assert stats.element_names(ArraySpec("a", ())) == ["a"]
    assert stats.element_names(ArraySpec("a", (100,))) == ["a (all 100)"]


def test_plots_do_not_go_into_the_dataset(folder, capsys):
    assert main(["dataset", "stats", f"dataset={folder}", f"out={folder / 'plots'}"]) == 2
    assert "is inside of the dataset" in capsys.readouterr().err
    blocked = folder.parent / "file"
    blocked.write_text("x")
    assert main(["dataset", "stats", f"dataset={folder}", f"out={blocked}", "pictures=0"]) == 1
    assert "cannot be written" in capsys.readouterr().err
