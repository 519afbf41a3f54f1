import json
from pathlib import Path

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.cli import main
from robot.episodes.care.selection import Chosen, Joined
from robot.episodes.care.split import divided
from robot.episodes.care.validation import validate
from robot.episodes.formats import lerobot_writer
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.video import Encoding
from robot.episodes.rows import Held
from robot.errors import ArmatureError, ConfigError, DatasetError
from robot.specs import ArraySpec
from tests.robot.episodes.care.whole import FPS, FRONT, STATE, WRIST, episode, schema, source
from tests.robot.episodes.formats import foreign

PNG = lerobot_writer.Settings(encoding=Encoding(codec="png"))


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("merge")
    lerobot_writer.write(source((8, 5)), root / "a", PNG)
    lerobot_writer.write(source((6, 9, 4), first=2), root / "b", PNG)
    return root / "a", root / "b"


def assert_same(found, number: int, expected) -> None:
    rows = found.read(number)
    for key, column in expected.columns.items():
        np.testing.assert_array_equal(rows.columns[key], column, key)
    for key, pictures in expected.pictures.items():
        np.testing.assert_array_equal(np.stack(list(rows.pictures[key])), pictures, key)
    assert (rows.task, rows.origin["seed"], rows.subsets) == (expected.task, expected.origin["seed"], expected.subsets)


def test_merged_episodes_are_those_of_both(folders, tmp_path, capsys):
    a, b = folders
    assert main(["dataset", "merge", f"datasets=[{a},{b}]", f"out={tmp_path / 'both'}"]) == 0
    assert "5 episodes, 32 frames of 2 datasets" in capsys.readouterr().out
    found = LeRobotSource(tmp_path / "both")
    for number, length in enumerate((8, 5, 6, 9, 4)):
        assert_same(found, number, episode(number, length))
    assert not validate(tmp_path / "both").report.findings
    assert set(found.files.tasks.values()) == {"push disc 0", "push disc 1"}
    assert found.files.armature["build"]["merged"] == [str(a), str(b)]
    assert found.files.armature["encoding"] == {"codec": "png"}


def packets(root: Path, number: int, key: str) -> list[bytes]:
    """Encoded frames of an episode, as they lie in its video."""
    span = LeRobotSource(root).read(number).pictures[key]
    with av.open(str(span.path)) as container:
        found = [bytes(packet) for packet in container.demux(container.streams.video[0]) if packet.size]
    return found[span.first : span.first + len(span)]


def test_videos_of_ours_are_copied(tmp_path, capsys):
    for name, first in (("a", 0), ("b", 2)):
        lerobot_writer.write(source((8, 5), first=first), tmp_path / name)
    assert main(["dataset", "merge", f"datasets=[{tmp_path}/a,{tmp_path}/b]", f"out={tmp_path}/both"]) == 0
    assert "encoded again" not in capsys.readouterr().err
    assert main(["dataset", "split", f"dataset={tmp_path}/both", f"out={tmp_path}", "parts={c:[1,2]}"]) == 0
    assert not validate(tmp_path / "both").report.findings
    assert not validate(tmp_path / "c").report.findings
    for key in (FRONT, WRIST):
        wanted = [packets(tmp_path / name, number, key) for name in "ab" for number in range(2)]
        assert [packets(tmp_path / "both", number, key) for number in range(4)] == wanted
        assert [packets(tmp_path / "c", number, key) for number in range(2)] == wanted[1:3]
    lerobot_writer.write(source((8, 5, 8, 5)), tmp_path / "straight")
    stats = [json.loads((tmp_path / name / "meta/stats.json").read_text())[FRONT] for name in ("both", "straight")]
    assert stats[0] == stats[1]


def test_damaged_notes_are_told_of(tmp_path):
    for name, first in (("a", 0), ("b", 2)):
        lerobot_writer.write(source((8, 5), first=first), tmp_path / name)
    prints = next((tmp_path / "b/meta/armature/fingerprints").rglob("*.parquet"))
    prints.write_bytes(prints.read_bytes()[:-50])
    with pytest.raises(DatasetError, match=r"what was noted of .* in episode 0 is damaged"):
        lerobot_writer.write(LeRobotSource(tmp_path / "b"), tmp_path / "c")


def test_video_of_another_kind_is_encoded_again_and_that_is_said(tmp_path, capsys):
    for name, first, crf in (("a", 0, 20), ("b", 2, 26)):
        settings = lerobot_writer.Settings(encoding=Encoding(crf=crf))
        lerobot_writer.write(source((8, 5), first=first), tmp_path / name, settings)
    assert main(["dataset", "merge", f"datasets=[{tmp_path}/a,{tmp_path}/b]", f"out={tmp_path}/both"]) == 0
    assert "decoded and encoded again as h264, which loses a little" in capsys.readouterr().err
    assert not validate(tmp_path / "both").report.findings


def test_what_does_not_belong_together_is_told(folders, tmp_path, capsys):
    a, _ = folders
    made = source((5,), robot="other", cameras=(FRONT,))
    lerobot_writer.write(made, tmp_path / "other", PNG)
    assert main(["dataset", "merge", f"datasets=[{a},{tmp_path / 'other'}]", f"out={tmp_path / 'x'}"]) == 1
    said = capsys.readouterr().err
    assert f"{WRIST}: missing; robot is other, expected disc" in said
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("datasets", "said", "status"),
    [
        ("[{a}]", "at least two datasets", 2),
        ("[{a},{a}]", "is named twice", 1),
        ("[{a},{a}/nowhere]", "There is no dataset folder", 1),
    ],
)
def test_merging_refuses(folders, tmp_path, capsys, datasets, said, status):
    arguments = [f"datasets={datasets.format(a=folders[0])}", f"out={tmp_path / 'x'}"]
    assert main(["dataset", "merge", *arguments]) == status
    assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()


def test_nothing_is_written_over(folders, tmp_path, capsys):
    a, b = folders
    for out in (a, tmp_path):
        (tmp_path / "thesis.txt").write_text("mine")
        assert main(["dataset", "merge", f"datasets=[{a},{b}]", f"out={out}"]) == 1
        assert "Choose another folder" in capsys.readouterr().err
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert len(LeRobotSource(a)) == 2


def test_columns_that_some_lack_are_left_out_and_ranges_are_widened():
    narrow = schema()
    wide = schema()
    wide.specs.observation[STATE] = ArraySpec(
        STATE, (2,), low=(-2.0, -1.0), high=(1.0, 3.0), unit="m m", names=("x", "y")
    )
    wide.extras.pop("remark")
    joined = Joined([Held(narrow, [episode(0, 4)]), Held(wide, [episode(1, 5)])], ["a", "b"])
    assert joined.dropped == ("remark",)
    spec = joined.schema.specs.observation[STATE]
    assert (spec.low, spec.high) == ((-2.0, -1.0), (1.0, 3.0))
    assert joined.schema.specs.task == "push the disc"
    assert "remark" not in joined.read(0).columns
    assert [len(joined.read(number)) for number in range(len(joined))] == [4, 5]
    assert joined.identity(1) == Held(wide, [episode(1, 5)]).identity(0)
    with pytest.raises(DatasetError, match="episodes 0 to 1, there is no episode 2"):
        joined.read(2)
    wide.extras["next.reward"] = ArraySpec("next.reward", (), "float64")
    with pytest.raises(DatasetError, match=r"next\.reward: dtype is float64, expected float32"):
        Joined([Held(narrow, []), Held(wide, [])], ["a", "b"])


def test_chosen_episodes_are_those_of_the_source():
    held = source((4, 5, 6))
    chosen = Chosen(held, [2, 0])
    assert [len(chosen.read(number)) for number in range(2)] == [6, 4]
    assert chosen.identity(0) == held.identity(2)
    with pytest.raises(DatasetError, match="there is no episode 3"):
        Chosen(held, [3])
    with pytest.raises(DatasetError, match="Episode 1 is named twice"):
        Chosen(held, [1, 1])


@given(
    count=st.integers(2, 200),
    weights=st.lists(st.integers(1, 10), min_size=1, max_size=5),
    seed=st.integers(0, 5),
)
def test_shares_are_exact_disjoint_and_seeded(count, weights, seed):
    parts = {f"part{number}": weight / sum(weights) for number, weight in enumerate(weights)}
    if min(weights) * count < sum(weights):  # a part may be less than one episode
        parts = {"all": 1.0}
    found = divided(count, parts, {}, seed)
    everything = [number for numbers in found.values() for number in numbers]
    assert sorted(everything) == list(range(count))
    for name, share in parts.items():
        assert abs(len(found[name]) - share * count) < 1
    assert found == divided(count, parts, {}, seed)


def test_parts_by_episodes_subsets_and_shares_of_the_rest():
    found = divided(10, {"a": [3, 1], "b": "mask", "c": 0.5}, {"mask": (0, 9)}, seed=1)
    assert found["a"] == (1, 3)
    assert found["b"] == (0, 9)
    assert len(found["c"]) == 3
    assert not set(found["c"]) & {0, 1, 3, 9}
    assert divided(10, {"c": 0.5}, {}, 1) != divided(10, {"c": 0.5}, {}, 2)


@pytest.mark.parametrize(
    ("parts", "error", "said"),
    [
        ({"a": [1], "b": [1]}, DatasetError, "Episode 1 is in the parts 'a' and 'b'"),
        ({"a": [10]}, DatasetError, "names episode 10, there are episodes 0 to 9"),
        ({"a": "mas"}, ArmatureError, "Did you mean 'mask'"),
        ({"a": 0.7, "b": 0.7}, ConfigError, "sum to at most 1"),
        ({"a": 0.01, "b": 0.99}, DatasetError, "Part 'a' would have none"),
        ({"a": True}, ConfigError, "expected a share"),
        ({"a": []}, DatasetError, "would have none"),
    ],
)
def test_parts_that_cannot_be_are_refused(parts, error, said):
    with pytest.raises(error, match=said):
        divided(10, parts, {"mask": (0, 9)}, 0)


def test_a_split_dataset_has_the_episodes_of_its_parts(folders, tmp_path, capsys):
    _, b = folders
    arguments = [f"dataset={b}", f"out={tmp_path}", "parts={one:[2],rest:[0,1]}"]
    assert main(["dataset", "split", *arguments]) == 0
    assert_same(LeRobotSource(tmp_path / "one"), 0, episode(4, 4))
    for number in (0, 1):
        assert_same(LeRobotSource(tmp_path / "rest"), number, episode(2 + number, (6, 9)[number]))
    about = json.loads((tmp_path / "one/meta/armature.json").read_text())["build"]["split"]
    assert about == {"of": str(b), "part": "one", "episodes": [2], "seed": 0}
    assert not validate(tmp_path / "one").report.findings
    capsys.readouterr()
    assert main(["dataset", "split", *arguments]) == 1
    assert "one exists. Choose another folder" in capsys.readouterr().err


def test_the_default_split_leaves_no_episode_out(tmp_path):
    lerobot_writer.write(source((4,) * 10, cameras=()), tmp_path / "ten")
    assert main(["dataset", "split", f"dataset={tmp_path / 'ten'}", f"out={tmp_path / 'parts'}"]) == 0
    counts = {path.name: len(LeRobotSource(path)) for path in (tmp_path / "parts").iterdir()}
    assert counts == {"train": 9, "valid": 1}
    assert LeRobotSource(tmp_path / "parts/train").files.fps == FPS


def test_foreign_datasets_are_merged_too(tmp_path):
    """Their PNGs stay without loss, an episode of two tasks keeps both, and texts and arrays come along."""
    a = foreign.write(tmp_path / "a", video="", is_many_files=True)
    b = foreign.write(tmp_path / "b", video="", is_named=False)
    assert main(["dataset", "merge", f"datasets=[{a},{b}]", f"out={tmp_path / 'both'}", "workers=1"]) == 0
    found = LeRobotSource(tmp_path / "both")
    assert found.files.is_ours
    assert len(found) == 6
    for number in range(6):
        rows, expected = found.read(number), foreign.columns(number % 3)
        for key, column in expected.items():
            np.testing.assert_array_equal(rows.columns[key].reshape(column.shape), column, key)
        given = rows.task if isinstance(rows.task, tuple) else (rows.task,) * len(rows)
        assert list(given) == foreign.tasks(number % 3)
        for frame, picture in enumerate(rows.pictures[foreign.CAMERA]):
            np.testing.assert_array_equal(picture, foreign.picture(number % 3, frame))
    assert sorted(found.files.tasks.values()) == ["lift", "place"]
    assert not validate(tmp_path / "both").report.errors
