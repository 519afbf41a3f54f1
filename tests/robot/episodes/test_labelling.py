import pytest
from mcap.reader import make_reader

from robot.episodes.episode import Result
from robot.episodes.labelling import amended
from robot.episodes.log_reader import EpisodeReader
from robot.errors import EpisodeError
from tests.robot.episodes.test_log import OLD, fingerprint, write_episode, write_timed


def test_a_label_decides_and_the_outcome_stays_readable(tmp_path):
    path = tmp_path / "episode-000000.mcap"
    write_timed(path)
    before = fingerprint(path)
    assert amended(path, success=False, note="it slipped") == Result(0, False, False, True, False)
    reader = EpisodeReader(path)
    assert reader.result == Result(0, False, False, True, False)
    assert reader.outcome == Result(0, True, True, True, False)
    assert [(label.success, label.note) for label in reader.labels] == [(False, "it slipped")]
    after = fingerprint(path)
    assert after[0] == before[0]
    assert after[2:4] == before[2:4]
    assert after[4][:-1] == before[4]
    last = after[4][-1]
    assert (last.name, last.text, last.data["label"]) == ("failure", "it slipped", True)
    assert list(tmp_path.iterdir()) == [path]


def test_the_last_word_counts_and_notes_change_nothing(tmp_path):
    path = tmp_path / "episode-000000.mcap"
    write_episode(path)
    amended(path, success=False)
    amended(path, success=True, note="look again")
    result = amended(path, note="nice light")
    assert result == EpisodeReader(path).result == Result(5, True, True, True, False)
    assert [event.name for event in EpisodeReader(path).read().events] == ["failure", "success", "note"]
    with path.open("rb") as file:
        reader = make_reader(file, validate_crcs=True)
        summary = reader.get_summary()
        names = [record.name for record in reader.iter_metadata()]
        assert sum(1 for _ in reader.iter_messages()) == summary.statistics.message_count == 25
    assert names == ["armature.header", "armature.outcome", *["armature.label"] * 3]
    assert summary.statistics.metadata_count == 5


def test_old_episodes_can_be_labelled(tmp_path):
    path = tmp_path / "episode-000000.mcap"
    path.write_bytes((OLD / "version-2.mcap").read_bytes())
    amended(path, success=True)
    assert EpisodeReader(path).result.success_final
    assert len(EpisodeReader(path).read().channels["/step"].t_ns) == 5


def test_a_damaged_label_is_refused(tmp_path):
    path = tmp_path / "episode-000000.mcap"
    write_timed(path)
    amended(path, success=False)
    data = path.read_bytes()
    at = data.rindex(b"success")
    path.write_bytes(data[: at + 11] + bytes([data[at + 11] ^ 1]) + data[at + 12 :])
    with pytest.raises(EpisodeError, match=r"episode-000000\.mcap is damaged"):
        EpisodeReader(path)


def test_what_cannot_be_labelled_stays_as_it_is(tmp_path, monkeypatch):
    path = tmp_path / "episode-000000.mcap"
    with pytest.raises(EpisodeError, match="cannot be read"):
        amended(path, success=True)
    write_timed(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robot.episodes.labelling.atomic.publish", full)
    with pytest.raises(EpisodeError, match="cannot be labelled: No space left on"):
        amended(path, success=True)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
    path.write_bytes(before[:-30])
    with pytest.raises(EpisodeError, match="was cut short"):
        amended(path, success=True)
