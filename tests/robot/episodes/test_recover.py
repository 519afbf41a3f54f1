import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from robot.episodes import mcap_records
from robot.episodes.episode import Event, Header, Result
from robot.episodes.labelling import amended
from robot.episodes.log import EpisodeWriter, LogWriter
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.recover import recover, survey
from robot.errors import EpisodeError
from tests.robot.episodes.fakes import STATE, point_specs
from tests.robot.episodes.test_log import (
    FRONT_TOPIC,
    STATE_TOPIC,
    fingerprint,
    make_step,
    smooth_picture,
    timed_header,
    values,
    write_timed,
)


def interrupted_steps(folder: Path, steps: int = 12, chunk_every: int = 3) -> Path:
    """What a recorder leaves that is killed after so many steps, with a chunk for some of them each."""
    path = folder / "episode-000000.mcap"
    part = folder / "episode-000000.mcap.part"
    kept = folder / "kept"
    rng = np.random.default_rng(1)
    with EpisodeWriter(path, Header(point_specs(), "expert", seed=4)) as writer:
        for at in range(steps):
            writer.write(make_step(at, rng))
            if at % chunk_every == chunk_every - 1:
                writer._log._close_chunk()
        shutil.copy(part, kept)
    kept.rename(part)
    return part


def interrupted_times(folder: Path, count: int = 12) -> Path:
    path, part = folder / "episode-000001.mcap", folder / "episode-000001.mcap.part"
    with LogWriter(path, timed_header()) as log:
        for at in range(count):
            log.vector(STATE_TOPIC, 10 * at, np.array([at, -at]))
            if at % 3 == 0:
                log.picture(FRONT_TOPIC, 10 * at + 5, smooth_picture(at))
            if at % 4 == 3:
                log.event(Event(10 * at + 7, "success" if at == 7 else "note"))
                log._close_chunk()
    assert part.exists()
    return part


def chunk_ends(part: Path) -> list[int]:
    ends = []
    try:
        with part.open("rb") as file:
            for record in mcap_records.records(file):
                if record.opcode == mcap_records.CHUNK:
                    ends.append(record.offset + 9 + len(record.content))
    except EOFError:
        pass
    return ends


def test_a_killed_recording_of_steps_becomes_an_episode(tmp_path):
    part = interrupted_steps(tmp_path)
    target = tmp_path / "episode-000000.mcap"
    result = recover(part, target)
    assert result == Result(12, False, True, False, False)
    assert [path.name for path in tmp_path.iterdir()] == ["episode-000000.mcap"]
    episode = EpisodeReader(target).read()
    rng = np.random.default_rng(1)
    steps = [make_step(at, rng) for at in range(12)]
    assert episode.result == result
    assert (episode.header.source, episode.header.seed, episode.header.specs) == ("expert", 4, point_specs())
    np.testing.assert_array_equal(values(episode, STATE_TOPIC), [step.observation[STATE] for step in steps])
    np.testing.assert_array_equal(values(episode, "/action/device"), [step.device for step in steps])
    [event] = episode.events
    assert (event.name, event.data) == (
        "recovered",
        {"lost_bytes": 0, "damaged_chunks": 0, "damaged_notes": 0, "trimmed": {}},
    )


def test_a_killed_recording_of_a_robot_becomes_an_episode(tmp_path):
    part = interrupted_times(tmp_path)
    result = recover(part, tmp_path / "episode-000001.mcap")
    assert result == Result(0, True, True, False, False)
    episode = EpisodeReader(tmp_path / "episode-000001.mcap").read()
    assert episode.channels[STATE_TOPIC].t_ns.tolist() == [10 * at for at in range(12)]
    assert values(episode, STATE_TOPIC).tolist() == [[at, -at] for at in range(12)]
    assert episode.pictures[FRONT_TOPIC].t_ns.tolist() == [5, 35, 65, 95]
    shown = zip(episode.pictures[FRONT_TOPIC].pictures, (0, 3, 6, 9), strict=True)
    assert all(np.abs(picture - smooth_picture(at).astype(int)).mean() < 2 for picture, at in shown)
    assert [event.name for event in episode.events] == ["note", "success", "note", "recovered"]


@pytest.mark.parametrize("interrupted", [interrupted_steps, interrupted_times])
def test_every_cut_keeps_the_chunks_before_it(tmp_path, interrupted):
    """What is found are the whole chunks; where that changes, an episode is made of it."""
    part = interrupted(tmp_path)
    whole, ends, first = part.read_bytes(), chunk_ends(part), {}
    near = {size for end in [0, *ends] for size in range(end - 30, end + 31)}
    for size in sorted(near & {*range(len(whole) + 1)} | {*range(0, len(whole), 5), len(whole)}):
        part.write_bytes(whole[:size])
        held = sum(end <= size for end in ends)
        if not held:
            with pytest.raises(EpisodeError, match=r"mcap\.part (is not an MCAP|holds no (header|whole step|message))"):
                survey(part)
            continue
        found = survey(part)
        assert found.lost_bytes <= size - ends[held - 1]
        assert found.counts[STATE_TOPIC] == (3 if interrupted is interrupted_steps else 4) * held
        first.setdefault(held, size)
    assert len(first) == len(ends) >= 3
    target = part.with_suffix("")
    for held, size in first.items():
        part.write_bytes(whole[: size + 7])
        recover(part, target)
        episode = EpisodeReader(target).read()
        assert len(episode.channels[STATE_TOPIC].t_ns) == (3 if interrupted is interrupted_steps else 4) * held
        target.unlink()


def test_a_step_that_was_cut_in_two_is_left_out_of_every_channel(tmp_path):
    path, part = tmp_path / "episode-000000.mcap", tmp_path / "episode-000000.mcap.part"
    with LogWriter(path, Header(point_specs(), "expert")) as log:
        for at in range(5):
            log.vector(STATE_TOPIC, at, np.full(2, at))
            log.vector("/observation/environment_state", at, np.zeros(1))
            log.vector("/action/device", at, np.zeros(3))
            if at == 4:
                break
            log.vector("/action/commanded", at, np.zeros(3))
            log.vector("/step", at, np.array([0.5, at == 3, at == 3, False]))
    result = recover(part, path)
    assert result == Result(4, True, True, True, False)
    episode = EpisodeReader(path).read()
    assert values(episode, STATE_TOPIC)[:, 0].tolist() == [0, 1, 2, 3]
    one = {STATE_TOPIC: 1, "/observation/environment_state": 1, "/action/device": 1}
    assert episode.events[0].data["trimmed"] == one


@pytest.mark.parametrize("garbage", [b"\0" * 5000, bytes(range(256)) * 20, b"\x06\xff\0\0\0\0\0\0\0" + b"x" * 400])
def test_garbage_at_the_end_is_left_out(tmp_path, garbage):
    """A power cut may leave zeros, or what was on the disk before."""
    part = interrupted_times(tmp_path)
    clean, dirty = part.read_bytes(), tmp_path / "episode-000009.mcap.part"
    dirty.write_bytes(clean + garbage)
    recover(part, tmp_path / "episode-000001.mcap")
    recover(dirty, tmp_path / "episode-000009.mcap")
    one, two = (fingerprint(tmp_path / f"episode-00000{number}.mcap") for number in (1, 9))
    assert one[:4] == two[:4]
    assert one[4][:-1] == two[4][:-1]
    assert 0 < two[4][-1].data["lost_bytes"] <= len(garbage)


def test_a_damaged_chunk_costs_a_robots_recording_only_itself_and_one_of_steps_what_follows(tmp_path):
    for interrupted, name, kept in ((interrupted_times, "000001", 8), (interrupted_steps, "000000", 3)):
        part = interrupted(tmp_path)
        data, ends = bytearray(part.read_bytes()), chunk_ends(part)
        data[ends[1] - 20] ^= 0xFF
        part.write_bytes(bytes(data))
        recover(part, tmp_path / f"episode-{name}.mcap")
        episode = EpisodeReader(tmp_path / f"episode-{name}.mcap").read()
        assert len(episode.channels[STATE_TOPIC].t_ns) == kept
        assert episode.events[-1].data["damaged_chunks"] == 1
        assert "1 chunks are damaged" in episode.events[-1].text


def test_a_recorder_that_was_killed_before_it_named_its_file_lost_nothing(tmp_path):
    path = tmp_path / "episode-000000.mcap"
    write_timed(path)
    before = fingerprint(path)
    part = path.rename(tmp_path / "episode-000000.mcap.part")
    assert recover(part, path) == Result(0, True, True, True, False)
    assert fingerprint(path) == before
    assert not part.exists()


def test_an_outcome_that_was_written_is_kept(tmp_path):
    """Killed while the index was written: the result is in the file, and the index is not."""
    path, part = tmp_path / "episode-000000.mcap", tmp_path / "episode-000000.mcap.part"
    write_timed(path)
    part.write_bytes(path.read_bytes()[:-100])
    path.unlink()
    assert recover(part, path) == Result(0, True, True, True, False)


def test_an_episode_that_was_damaged_since_gives_what_can_be_read(tmp_path):
    path, part = tmp_path / "episode-000000.mcap", tmp_path / "episode-000000.mcap.part"
    with LogWriter(path, timed_header()) as log:
        for at in range(12):
            log.vector(STATE_TOPIC, at, np.array([at, -at]))
            if at % 4 == 3:
                log._close_chunk()
        log.finish(Result(0, False, True, False, True))
    amended(path, success=True, note="seen")
    data = bytearray(path.read_bytes())
    data[chunk_ends(path)[1] - 20] ^= 0xFF
    path.write_bytes(bytes(data))
    with pytest.raises(EpisodeError, match=r"rename it to episode-000000\.mcap\.part and save what can be read"):
        EpisodeReader(path).read()
    path.rename(part)
    assert recover(part, path) == Result(0, False, True, False, True)
    reader = EpisodeReader(path)
    assert values(reader.read(), STATE_TOPIC)[:, 0].tolist() == [0, 1, 2, 3, 8, 9, 10, 11]
    assert (reader.result.success_final, reader.labels[0].note) == (True, "seen")


def test_a_label_that_is_damaged_is_told_of(tmp_path):
    path, part = tmp_path / "episode-000000.mcap", tmp_path / "episode-000000.mcap.part"
    with LogWriter(path, timed_header()) as log:
        log.vector(STATE_TOPIC, 1, np.zeros(2))
        log.finish(Result(0, False, False, False, True))
    amended(path, success=True, note="seen")
    data = path.read_bytes()
    part.write_bytes(data.replace(b"seen", b"sean", 1)[:-9])
    path.unlink()
    assert not recover(part, path).success_final
    event = EpisodeReader(path).events()[-1]
    assert event.data["damaged_notes"] == 1
    assert "1 of what says how it ended is damaged" in event.text


def test_what_cannot_be_recovered_is_named(tmp_path):
    part, path = tmp_path / "episode-000000.mcap.part", tmp_path / "episode-000000.mcap"
    with pytest.raises(EpisodeError, match="cannot be read: No such file"):
        recover(part, path)
    part.write_bytes(b"")
    with pytest.raises(EpisodeError, match=r"part is not an MCAP file\. Delete it"):
        recover(part, path)
    shutil.copy(Path(__file__).parent / "old_logs/version-2.mcap", part)
    part.write_bytes(part.read_bytes()[:-300])
    with pytest.raises(EpisodeError, match="is of format version 2, of which nothing is recovered"):
        recover(part, path)
    kept = part.rename(tmp_path / "kept")
    write_timed(path)
    kept.rename(part)
    with pytest.raises(EpisodeError, match=r"is there already, and .*part would take its name"):
        recover(part, path)
    assert part.exists()


def test_a_full_disk_leaves_the_unfinished_file(tmp_path, monkeypatch):
    part = interrupted_times(tmp_path)
    before = part.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("robot.episodes.recover.atomic.publish", full)
    with pytest.raises(EpisodeError, match=r"cannot be written: No space left on device.*is as it was"):
        recover(part, tmp_path / "episode-000001.mcap")
    assert part.read_bytes() == before
    assert list(tmp_path.iterdir()) == [part]


def test_the_event_is_json(tmp_path):
    part = interrupted_times(tmp_path)
    recover(part, tmp_path / "episode-000001.mcap")
    event = EpisodeReader(tmp_path / "episode-000001.mcap").read().events[-1]
    assert json.dumps(dict(event.data))
