import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.cli import main
from robot.episodes.care.picture_checks import shifts
from robot.episodes.care.validation import validate
from robot.episodes.dataset import Dataset
from robot.episodes.formats import lerobot_writer
from robot.episodes.formats.fingerprint import fingerprint
from robot.episodes.formats.lerobot_reader import LeRobotSource
from robot.episodes.formats.video import Encoding
from robot.episodes.rows import Held, Rows
from robot.errors import ArmatureError, DatasetError
from tests.robot.episodes.care import damage as d
from tests.robot.episodes.care.whole import FRONT, LENGTHS, STATE, episode, schema, source
from tests.robot.episodes.formats import foreign

STATS = "meta/stats.json"
SECOND = LENGTHS[0]  # first row of the second episode


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> dict[str, Path]:
    """A dataset of ours by codec, and one as LeRobot would leave it."""
    found = {}
    for codec in ("h264", "png"):
        found[codec] = tmp_path_factory.mktemp(codec) / "dataset"
        lerobot_writer.write(source(), found[codec], lerobot_writer.Settings(encoding=Encoding(codec=codec)))
    found["foreign"] = tmp_path_factory.mktemp("foreign") / "dataset"
    shutil.copytree(found["h264"], found["foreign"])
    d.as_foreign(found["foreign"])
    return found


@pytest.mark.parametrize("codec", ["h264", "png", "foreign"])
@pytest.mark.parametrize("is_fast", [True, False])
def test_nothing_is_wrong_with_whole_ones(whole, codec, is_fast):
    checked = validate(whole[codec], is_fast)
    assert [str(finding) for finding in checked.report.findings] == []
    assert (checked.episodes, checked.frames) == (3, sum(LENGTHS))
    assert checked.pictures == (0 if is_fast else 2 * sum(LENGTHS))


Damage = Callable[[Path], None]
BY_FRAMES: dict[str, tuple[Damage, str, str]] = {
    "a packet is lost": (
        lambda f: d.remux(f / d.VIDEO, keep=lambda k: k != 30),
        "missing frame",
        r"file-000.mp4 episode 1 frame 6: the file has no frame at 3\.0000 s; missing: frame 6",
    ),
    "the encoder lost a frame": (
        lambda f: d.reencode(f / d.VIDEO, lambda frames: frames[:40] + frames[41:]),
        "missing frame",
        r"80 frames, but its 3 episodes have 81 rows",
    ),
    "a frame is between two rows": (
        lambda f: d.remux(f / d.VIDEO, late_s=lambda k: 0.01 if k == 12 else 0.0),
        "shifted frame",
        r"episode 0 frame 12: the frame is at 1\.2\d+ s, its row at 1\.20000 s; off the grid: frame 12",
    ),
    "an episode begins a frame late": (
        lambda f: d.edit_column(f / d.EPISODES, f"videos/{FRONT}/from_timestamp", d.put(1, 2.5)),
        "missing frame",
        r"episode 1: from_timestamp 2\.5000 s to to_timestamp 5\.4000 s is 29\.00 frames, the episode has 30 rows",
    ),
    "an episode is a frame late": (
        lambda f: (
            d.edit_column(f / d.EPISODES, f"videos/{FRONT}/from_timestamp", d.put(1, 2.5)),
            d.edit_column(f / d.EPISODES, f"videos/{FRONT}/to_timestamp", d.put(1, 5.5)),
        ),
        "shifted frame",
        r"episode 2: it begins at 5\.4000 s, before episode 1 ends at 5\.5000 s",
    ),
}
BY_CONTENT: dict[str, tuple[Damage, str, str]] = {
    "frames are shifted": (
        lambda f: d.reencode(f / d.VIDEO, d.shift_from(SECOND + 10)),
        "shifted frame",
        r"episode 1 frame 1\d: the picture belongs 1 row later; so for frames",
    ),
    "frames are shifted by three": (
        lambda f: d.reencode(f / d.VIDEO, d.shift_from(SECOND + 10, 3)),
        "shifted frame",
        r"episode 1 frame 1[0-2]: the picture belongs 3 rows later; so for frames",
    ),
    "two episodes changed places": (
        lambda f: d.reencode(f / d.VIDEO, lambda frames: frames[24:48] + frames[:24] + frames[48:]),
        "other picture",
        r"episode 0 frame 0: the picture is not what was recorded: areas differ by up to \d+ of 255",
    ),
    "a video is scrambled": (
        lambda f: d.flip_byte(f / d.VIDEO, 0.4),
        "changed file",
        r"its bytes are not those that were written",
    ),
}
BY_ROWS: dict[str, tuple[Damage, str, str]] = {
    "NaN": (
        lambda f: d.edit_column(f / d.DATA, STATE, d.put(SECOND + 4, float("nan"), 1)),
        "not finite",
        r"file-000.parquet episode 1 frame 4: observation.state 'y' is nan; not finite in frame 4",
    ),
    "infinity": (
        lambda f: d.edit_column(f / d.DATA, "action", d.put(3, float("-inf"), 0)),
        "not finite",
        r"episode 0 frame 3: action 'a' is -inf",
    ),
    "mean": (
        lambda f: d.edit_json(f / STATS, lambda s: s[STATE]["mean"].__setitem__(0, 7.0)),
        "statistics",
        r"meta/stats.json: mean of 'observation.state'\[0\] is 7, the rows have -?0\.\d+",
    ),
    "count": (
        lambda f: d.edit_json(f / STATS, lambda s: s["action"].update(count=[80])),
        "statistics",
        r"count of 'action' is 80, the rows have 81",
    ),
    "quantile": (
        lambda f: d.edit_json(f / STATS, lambda s: s["action"].update(q99=[3.0, 0.5, 0.5])),
        "statistics",
        r"q99 of 'action'\[0\] is 3",
    ),
    "an episode's maximum": (
        lambda f: d.edit_column(f / d.EPISODES, f"stats/{STATE}/max", d.put(2, [5.0, 5.0])),
        "statistics",
        r"meta/episodes episode 2: max of 'observation.state'\[0\] is 5",
    ),
    "index": (
        lambda f: d.edit_column(f / d.DATA, "index", d.put(SECOND + 2, 999)),
        "index",
        r"episode 1 frame 2: index is 999, expected 26; wrong in row 26",
    ),
    "frame_index": (
        lambda f: d.edit_column(f / d.DATA, "frame_index", d.put(5, 6)),
        "index",
        r"episode 0 frame 5: frame_index is 6, expected 5",
    ),
    "episode_index": (
        lambda f: d.edit_column(f / d.DATA, "episode_index", d.put(SECOND, 0)),
        "index",
        r"episode 1 frame 0: episode_index is 0, expected 1",
    ),
    "first row of an episode": (
        lambda f: d.edit_column(f / d.EPISODES, "dataset_from_index", d.put(1, 25)),
        "index",
        r"meta/episodes episode 1: dataset_from_index is 25, expected 24",
    ),
    "clock": (
        lambda f: d.edit_column(f / d.DATA, "timestamp", d.put(7, 0.75)),
        "clock",
        r"episode 0 frame 7: timestamp is 0\.750000 s, expected 0\.700000 s; off in frame 7",
    ),
    "task": (
        lambda f: d.edit_column(f / d.DATA, "task_index", d.put(9, 5)),
        "task",
        r"episode 0 frame 9: task_index is 5, tasks are \[0, 1\]",
    ),
    "another task": (
        lambda f: d.edit_column(f / d.DATA, "task_index", lambda rows: rows.__setitem__(slice(24), [1] * 24)),
        "task",
        r"meta/episodes episode 0: its tasks are \['push disc 0'\], its rows say \['push disc 1'\]",
    ),
    "rows are missing": (
        lambda f: d.drop_rows(f / d.DATA, 30, 2),
        "rows",
        r"file-000.parquet: 79 rows, but its 3 episodes have 81 frames",
    ),
    "counter": (
        lambda f: d.edit_json(f / "meta/info.json", lambda info: info.update(total_frames=82)),
        "counter",
        r"info.json says total_frames 82, the episodes say 81",
    ),
}
BY_FILES: dict[str, tuple[Damage, str, str]] = {
    "truncated rows": (lambda f: d.truncate(f / d.DATA), "unreadable file", r"data/.*file-000.parquet: is truncated"),
    "no rows": (lambda f: (f / d.DATA).unlink(), "missing file", r"data/.*file-000.parquet: "),
    "truncated episodes": (lambda f: d.truncate(f / d.EPISODES), "unreadable meta", r"meta: .*is truncated"),
    "truncated statistics": (lambda f: d.truncate(f / STATS), "unreadable file", r"meta/stats.json"),
    "no statistics": (lambda f: (f / STATS).unlink(), "statistics", r"meta/stats.json: the file is missing"),
    "truncated video": (lambda f: d.truncate(f / d.VIDEO), "unreadable file", r"videos/.*file-000.mp4: is truncated"),
    "no video": (lambda f: (f / d.VIDEO).unlink(), "missing file", r"videos/.*file-000.mp4"),
}
BY_OUR_FILES: dict[str, tuple[Damage, str, str]] = {
    "no specs": (lambda f: (f / "meta/armature.json").unlink(), "missing file", r"armature\.json: without it nothing"),
    "no digests": (lambda f: (f / "meta/armature/files.json").unlink(), "missing file", r"armature/files\.json"),
    "no origins": (lambda f: (f / "meta/armature/episodes.parquet").unlink(), "missing file", r"episodes\.parquet"),
    "truncated origins": (
        lambda f: d.truncate(f / "meta/armature/episodes.parquet"),
        "unreadable file",
        r"armature/episodes\.parquet: is truncated",
    ),
    "an origin too few": (
        lambda f: d.drop_rows(f / "meta/armature/episodes.parquet", 1, 1),
        "origins",
        r"2 rows for 3 episodes",
    ),
    "no fingerprints": (
        lambda f: shutil.rmtree(f / "meta/armature/fingerprints"),
        "missing file",
        r"fingerprints/.*it was written with the dataset",
    ),
}
OURS = {**BY_FRAMES, **BY_CONTENT, **BY_ROWS, **BY_FILES, **BY_OUR_FILES}


def found(root: Path, is_fast: bool = False) -> list[str]:
    return [str(finding) for finding in validate(root, is_fast).report.errors]


def says(lines: list[str], kind: str, pattern: str) -> bool:
    return any(line.startswith(f"error: {kind}: ") and re.search(pattern, line) for line in lines)


@pytest.mark.parametrize("name", OURS)
def test_damage_is_found(whole, tmp_path, name):
    shutil.copytree(whole["h264"], tmp_path / "dataset")
    damage, kind, pattern = OURS[name]
    damage(tmp_path / "dataset")
    lines = found(tmp_path / "dataset")
    assert says(lines, kind, pattern), lines


@pytest.mark.parametrize("name", [*BY_FRAMES, *BY_ROWS, *(name for name in BY_FILES if name != "no statistics")])
def test_damage_of_foreign_ones_is_found_without_decoding(whole, tmp_path, name):
    shutil.copytree(whole["foreign"], tmp_path / "dataset")
    damage, kind, pattern = OURS[name]
    damage(tmp_path / "dataset")
    lines = found(tmp_path / "dataset", is_fast=True)
    assert says(lines, kind, pattern), lines


def test_foreign_episodes_that_changed_places_are_found_by_their_colours(whole, tmp_path):
    shutil.copytree(whole["foreign"], tmp_path / "dataset")
    OURS["two episodes changed places"][0](tmp_path / "dataset")
    assert says(found(tmp_path / "dataset"), "other picture", r"episode 0: mean colour is .* its statistics say")


def test_every_damage_is_told_at_once(whole, tmp_path):
    root = tmp_path / "dataset"
    shutil.copytree(whole["h264"], root)
    names = ["NaN", "mean", "clock", "task", "counter", "frames are shifted"]
    for name in names:
        OURS[name][0](root)
    lines = found(root)
    for name in names:
        assert says(lines, *OURS[name][1:]), (name, lines)


def test_png_that_is_damaged_or_absent_is_found(whole, tmp_path):
    root = tmp_path / "dataset"
    shutil.copytree(whole["png"], root)
    d.edit_column(root / d.DATA, FRONT, d.put(2, {"bytes": b"\x89PNG damaged", "path": None}))
    d.edit_column(root / d.DATA, FRONT, d.put(SECOND + 3, {"bytes": None, "path": None}))
    lines = found(root)
    assert says(lines, "unreadable picture", r"episode 0 frame 2: .*picture 2 is damaged"), lines
    assert says(lines, "unreadable picture", r"episode 1 .*has a row without a picture"), lines


def test_leftovers_are_warned_of(whole, tmp_path):
    root = tmp_path / "dataset"
    shutil.copytree(whole["h264"], root)
    shutil.copy(root / d.DATA, root / "data/chunk-000/file-007.parquet")
    warnings = [str(finding) for finding in validate(root, is_fast=True).report.warnings]
    assert warnings == [
        line for line in warnings if line.startswith("warning: leftover file: data/chunk-000/file-007.parquet: nothing")
    ]
    assert len(warnings) == 1


def warned(rows: list[Rows], tmp_path: Path) -> list[str]:
    lerobot_writer.write(Held(schema(cameras=(FRONT,)), rows), tmp_path / "odd")
    checked = validate(tmp_path / "odd")
    assert not checked.report.errors
    return [str(finding) for finding in checked.report.warnings]


def test_what_a_person_should_look_at_is_warned_of(tmp_path):
    rows = [episode(number, 40, (FRONT,)) for number in range(4)]
    rows[0].columns[STATE][5, 0] = 1.5
    rows[1].columns["action"][20, 0] = -rows[1].columns["action"][20, 0] + 30
    rows[2].columns[STATE][12:30] = rows[2].columns[STATE][12]
    rows[3].pictures[FRONT][8:32] = rows[3].pictures[FRONT][8]
    rows[3].columns["next.reward"][2] = np.nan
    lines = warned(rows, tmp_path)
    expected = [
        r"warning: range: .*episode 0 frame 5: observation.state 'x' is 1\.5, its spec says \[-1, 1\]",
        r"warning: jump: .*episode 1 frame 20: action 'a' jumps by",
        r"warning: frozen channel: .*episode 2 frame 12: observation.state does not change for 18 frames \(1\.8 s\)",
        r"warning: frozen pictures: .*episode 3 frame 8: 24 equal pictures \(2\.4 s\) while observation.state moves",
        r"warning: not finite: .*episode 3 frame 2: next.reward is nan",
    ]
    for pattern in expected:
        assert any(re.search(pattern, line) for line in lines), (pattern, lines)
    assert {line.split(": ")[1] for line in lines} == {
        "range",
        "jump",
        "frozen channel",
        "frozen pictures",
        "not finite",
    }


def test_jumps_that_every_demonstration_has_are_how_it_was_demonstrated(tmp_path):
    rows = [episode(number, 40, (FRONT,)) for number in range(4)]
    for number in range(2):
        rows[number].columns["action"][20, 0] += 30
    assert {line.split(": ")[1] for line in warned(rows, tmp_path)} == {"range"}


def test_shifts_of_frames_are_known_by_their_prints():
    prints = np.stack([fingerprint(picture) for picture in episode(0, 40, (FRONT,)).pictures[FRONT]])
    rng = np.random.default_rng(0)
    noisy = np.clip(prints.astype(int) + rng.integers(-1, 2, prints.shape), 0, 255).astype(np.uint8)
    assert not shifts(prints, noisy).any()
    for step in (-3, -1, 1, 4):
        at = np.clip(np.arange(40) + np.where(np.arange(40) >= 15, step, 0), 0, 39)
        got = shifts(prints, noisy[at])
        assert not got[:14].any()
        assert (got[16:35] == step).mean() > 0.8, (step, got)


def test_an_area_that_encoding_spoils_is_no_shift():
    """Small pictures of a scene that hardly moves: one area of a frame is off, and happens to be as the row before."""
    rng = np.random.default_rng(0)
    still = np.broadcast_to(rng.integers(40, 200, 64).astype(np.uint8), (10, 64)).copy()
    still[5:, :20] += 1
    got = still + rng.integers(0, 3, still.shape).astype(np.uint8)
    still[5, 7] += 6
    got[5, 7] = still[4, 7]
    assert not shifts(still, got).any()


def test_slow_scenes_are_known_by_all_their_frames_together():
    ramp = np.linspace(50, 90, 60)[:, None] + np.linspace(0, 60, 64)[None]  # less than one step of grey each frame
    prints = ramp.astype(np.uint8)
    assert not shifts(prints, prints).any()
    got = shifts(prints, prints[np.minimum(np.arange(60) + np.where(np.arange(60) >= 20, 2, 0), 59)])
    assert (got[25:57] == 2).all()
    assert not got[:18].any()


def test_the_verb_tells_and_fails(whole, tmp_path, capsys):
    assert main(["dataset", "validate", f"dataset={whole['h264']}"]) == 0
    assert "3 episodes, 81 frames, 162 decoded pictures: nothing wrong" in capsys.readouterr().out
    shutil.copytree(whole["h264"], tmp_path / "dataset")
    OURS["NaN"][0](tmp_path / "dataset")
    assert main(["dataset", "validate", f"dataset={tmp_path / 'dataset'}", "fast=true"]) == 1
    out = capsys.readouterr().out
    assert "error: not finite: data/chunk-000/file-000.parquet episode 1 frame 4" in out
    assert main(["dataset", "validate", f"dataset={tmp_path / 'nowhere'}"]) == 1
    assert "There is no dataset folder" in capsys.readouterr().err


def test_what_is_no_dataset_is_refused(tmp_path):
    (tmp_path / "file.txt").write_text("x")
    with pytest.raises(DatasetError, match=r"is no LeRobotDataset: it has no meta/info\.json"):
        validate(tmp_path)


@pytest.mark.parametrize("video", ["libx264", "libx265", ""])
def test_videos_with_frames_in_another_order_and_tables_of_pictures_are_whole(tmp_path, video):
    """libx264 and libx265 reorder frames: the index of the file has times of decoding, rows are at those of showing."""
    checked = validate(foreign.write(tmp_path / "foreign", video=video, is_many_files=True))
    assert not checked.report.errors, [str(finding) for finding in checked.report.errors]
    assert [finding.kind for finding in checked.report.warnings] == ["statistics"]
    assert checked.report.warnings[0].text == "the file is missing"
    assert checked.pictures == sum(foreign.LENGTHS)


@settings(max_examples=25, deadline=None)
@given(
    which=st.integers(0, 999),
    at=st.floats(0, 1, exclude_max=True),
    mask=st.integers(1, 255),
    kind=st.sampled_from(["flip", "cut", "zeros"]),
    codec=st.sampled_from(["h264", "png", "foreign"]),
)
def test_no_damage_is_a_traceback(whole, tmp_path_factory, which, at, mask, kind, codec):
    """Wherever bytes change, a finding or one sentence says so, or the bytes did not matter."""
    root = tmp_path_factory.mktemp("random") / "dataset"
    shutil.copytree(whole[codec], root)
    files = sorted(path for path in root.rglob("*") if path.is_file())
    path = files[which % len(files)]
    data = bytearray(path.read_bytes())
    begin = int(at * len(data))
    if kind == "flip":
        data[begin] ^= mask
    else:
        data[begin : begin + mask] = b"\0" * min(mask, len(data) - begin) if kind == "zeros" else b""
    path.write_bytes(bytes(data))
    is_told = False
    try:
        is_told = bool(validate(root).report.errors)
    except DatasetError:
        is_told = True
    try:
        identity = Dataset.open(root).identity
        found = LeRobotSource(root)
        for number in range(len(found)):
            for pictures in found.read(number).pictures.values():
                assert len(list(pictures)) == len(pictures)
    except ArmatureError:
        assert is_told, "what cannot be read is an error of the validation too"
        return
    is_large = path.suffix in (".mp4", ".parquet") and "meta" not in path.relative_to(root).parts
    if codec != "foreign" and is_large:
        assert is_told, (path, identity)  # by its digest, if by nothing else
