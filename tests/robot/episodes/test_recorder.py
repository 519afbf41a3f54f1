"""The recorder between sources that must not wait and a disk that may be slow, full or gone."""

import threading
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robot.episodes.episode import TIME, Event, Header, Result, topic_of
from robot.episodes.log_reader import EpisodeReader
from robot.episodes.recorder import Bound, Bounds, Count, Log, Recorder
from robot.errors import EpisodeError, SpecError
from robot.specs import ArraySpec
from tests.robot.episodes.fakes import point_specs

STATE, IMAGE, MEASURED = "/observation/state", "/observation/images/front", "/measured/q"
RESULT = Result(0, True, True, True, False)
SHAPE = (48, 64, 3)


def header() -> Header:
    specs = point_specs()
    front = ArraySpec("observation.images.front", SHAPE, "uint8", 0, 255)
    observation = {key: spec for key, spec in specs.observation.items() if topic_of(key) == STATE}
    specs = replace(specs, observation={**observation, front.key: front})
    return Header(specs, "test", TIME, {MEASURED: ArraySpec("q", (3,), "float64")})


class FakeLog:
    """Keeps what it is given; waits or fails where it is told to."""

    def __init__(self, path: Path, header: Header) -> None:
        self.items: list[tuple[str, int]] = []
        self.events: list[Event] = []
        self.open = threading.Event()
        self.open.set()
        self.fails: Callable[[], Exception] | None = None
        self.ended = ""
        self.threads: set[str] = set()

    def vector(self, topic: str, t_ns: int, values: np.ndarray) -> None:
        self.threads.add(threading.current_thread().name)
        self.open.wait()
        if self.fails is not None:
            raise self.fails()
        if not np.isfinite(values).all():
            raise SpecError("not finite")
        self.items.append((topic, t_ns))

    def picture(self, topic: str, t_ns: int, picture: Any) -> None:
        self.vector(topic, t_ns, np.zeros(1))

    def event(self, happened: Event) -> None:
        self.events.append(happened)
        self.items.append(("/events", happened.t_ns))

    def finish(self, result: Result) -> None:
        self.ended = "finished"

    def abandon(self) -> None:
        self.ended = "abandoned"

    def close(self) -> None:
        self.ended = self.ended or "closed"


class Rig:
    def __init__(self, tmp_path: Path, **bounds: Bound) -> None:
        self.log = FakeLog(tmp_path, header())
        self.recorder = Recorder(tmp_path / "x.mcap", header(), Bounds(**bounds), self._open)

    def _open(self, path: Path, header: Header) -> Log:
        return self.log

    def stall(self) -> None:
        """The disk takes nothing any more; one item is stuck in the writer."""
        self.log.open.clear()
        self.recorder.vector(MEASURED, 1, np.zeros(3))
        until = time.monotonic() + 2
        while self.recorder._queue and time.monotonic() < until:
            time.sleep(0.005)

    def dropped(self) -> list[dict[str, Any]]:
        return [dict(event.data) for event in self.log.events if event.name == "dropped"]


def feed(recorder: Recorder, count: int, pause_s: float) -> None:
    rng = np.random.default_rng(0)
    for k in range(2, count):
        recorder.vector(MEASURED, k, rng.normal(size=3))
        time.sleep(pause_s)


@pytest.fixture
def rig(tmp_path: Path) -> Rig:
    return Rig(tmp_path)


def test_what_goes_in_comes_out_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "episode-000000.mcap"
    rng = np.random.default_rng(0)
    states = rng.normal(size=(200, 2)).astype(np.float32)
    image = rng.integers(0, 255, SHAPE, np.uint8)
    with Recorder(path, header()) as recorder:
        for k, state in enumerate(states):
            assert recorder.vector(STATE, 10 + k, state)
            assert recorder.vector(MEASURED, 20 + k, np.full(3, k / 3))
            if k % 10 == 0:
                recorder.picture(IMAGE, 10 + k, image)
        recorder.event(Event(15, "note", "hello"))
        recorder.finish(RESULT)
        counts = recorder.counts()
    episode = EpisodeReader(path).read()
    assert episode.result == RESULT
    np.testing.assert_array_equal(episode.channels[STATE].values, states)
    assert episode.channels[STATE].t_ns.tolist() == list(range(10, 210))
    np.testing.assert_array_equal(episode.channels[MEASURED].values[7], [7 / 3] * 3)
    assert len(episode.pictures[IMAGE].pictures) == 20
    assert [(event.name, event.text) for event in episode.events] == [("note", "hello")]
    assert counts[STATE] == Count(200, 200, size=states.nbytes)
    assert counts[IMAGE].written == 20


def test_nothing_is_written_in_the_callers_thread(rig: Rig) -> None:
    rig.recorder.vector(MEASURED, 1, np.zeros(3))
    rig.recorder.finish(RESULT)
    assert rig.log.threads == {"recorder of x.mcap"}
    assert rig.log.ended == "finished"


def test_a_caller_may_use_its_buffer_again(tmp_path: Path) -> None:
    buffer = np.zeros(3)
    with Recorder(tmp_path / "x.mcap", header()) as recorder:
        for k in range(100):
            buffer[:] = k
            recorder.vector(MEASURED, k, buffer)
        recorder.finish(RESULT)
    values = EpisodeReader(tmp_path / "x.mcap").read().channels[MEASURED].values
    np.testing.assert_array_equal(values[:, 0], np.arange(100))


def test_a_full_queue_drops_the_newest_and_says_so(tmp_path: Path) -> None:
    rig = Rig(tmp_path, vector=Bound(5, 10**6))
    rig.stall()
    taken = [rig.recorder.vector(MEASURED, 10 * k, np.zeros(3)) for k in range(1, 11)]
    assert taken == [True] * 4 + [False] * 6  # one more is stuck in the writer
    assert rig.recorder.counts()[MEASURED].depth == 5
    rig.log.open.set()
    while rig.recorder.counts()[MEASURED].depth:
        time.sleep(0.005)
    assert rig.recorder.vector(MEASURED, 200, np.zeros(3))
    rig.recorder.finish(RESULT)
    assert [t for topic, t in rig.log.items if topic == MEASURED] == [1, 10, 20, 30, 40, 200]
    (gap,) = rig.dropped()
    assert {**gap, "cause": ""} == {"topic": MEASURED, "count": 6, "from_ns": 50, "to_ns": 100, "cause": ""}
    # The gap is told of before what comes after it.
    assert rig.log.items.index(("/events", 50)) == rig.log.items.index((MEASURED, 200)) - 1
    count = rig.recorder.counts()[MEASURED]
    assert (count.received, count.written, count.dropped) == (12, 6, 6)


def test_a_gap_at_the_very_end_is_told_of(tmp_path: Path) -> None:
    rig = Rig(tmp_path, vector=Bound(2, 10**6))
    rig.stall()
    for k in range(1, 6):
        rig.recorder.vector(MEASURED, 10 * k, np.zeros(3))
    rig.log.open.set()
    rig.recorder.finish(RESULT)
    assert rig.dropped()[0]["count"] == 4


def test_bytes_are_bounded_too(tmp_path: Path) -> None:
    image = np.zeros(SHAPE, np.uint8)
    rig = Rig(tmp_path, picture=Bound(1000, 3 * image.nbytes + 100))
    rig.stall()
    assert [rig.recorder.picture(IMAGE, 10 + k, image) for k in range(5)] == [True] * 3 + [False] * 2
    assert rig.recorder.counts()[IMAGE].waiting == 3 * image.nbytes
    assert rig.recorder.vector(STATE, 10, np.zeros(2))
    rig.log.open.set()
    rig.recorder.close()


def test_one_channel_that_floods_takes_nothing_from_the_others(tmp_path: Path) -> None:
    rig = Rig(tmp_path, vector=Bound(10, 10**6))
    rig.stall()
    for k in range(100):
        rig.recorder.vector(MEASURED, 10 + k, np.zeros(3))
    assert all(rig.recorder.vector(STATE, 10 + k, np.zeros(2)) for k in range(10))
    rig.log.open.set()
    rig.recorder.close()


def test_a_stuck_disk_makes_nobody_wait(tmp_path: Path) -> None:
    rig = Rig(tmp_path, vector=Bound(50, 10**6), event=Bound(50, 10**6))
    rig.stall()
    done = threading.Event()

    def call() -> None:
        for k in range(500):
            rig.recorder.vector(STATE, 10 + k, np.zeros(2))
            rig.recorder.event(Event(k, "note"))
            rig.recorder.gap(IMAGE, 1, k, k + 1, "lost")
            rig.recorder.counts()
        done.set()

    threading.Thread(target=call, daemon=True).start()
    assert done.wait(5)
    rig.log.open.set()
    rig.recorder.close()


def test_what_the_source_lost_is_told_of(rig: Rig) -> None:
    rig.recorder.picture(IMAGE, 10, b"x")
    rig.recorder.gap(IMAGE, 3, 10, 50, "the network lost it")
    rig.recorder.picture(IMAGE, 50, b"x")
    rig.recorder.finish(RESULT)
    (gap,) = rig.dropped()
    assert gap == {"topic": IMAGE, "count": 3, "from_ns": 10, "to_ns": 50, "cause": "the network lost it"}
    assert rig.recorder.counts()[IMAGE] == Count(2, 2, 0, 3, size=2)
    assert [topic for topic, _ in rig.log.items] == [IMAGE, "/events", IMAGE]


def test_what_is_not_fit_to_be_written_is_dropped_and_the_rest_goes_on(rig: Rig) -> None:
    for k, value in enumerate([0.0, np.nan, np.nan, 1.0, np.nan]):
        rig.recorder.vector(MEASURED, 10 + k, np.full(3, value))
    rig.recorder.finish(RESULT)
    assert [(gap["count"], gap["from_ns"], gap["to_ns"], gap["cause"]) for gap in rig.dropped()] == [
        (2, 11, 12, "not finite"),
        (1, 14, 14, "not finite"),
    ]
    count = rig.recorder.counts()[MEASURED]
    assert (count.written, count.dropped, count.depth) == (2, 3, 0)


def test_times_that_do_not_grow_are_dropped(rig: Rig) -> None:
    assert [rig.recorder.vector(MEASURED, t, np.zeros(3)) for t in (5, 5, 4, 6)] == [True, False, False, True]
    rig.recorder.finish(RESULT)
    (gap,) = rig.dropped()
    assert (gap["count"], gap["from_ns"], gap["to_ns"]) == (2, 4, 5)
    assert "not later" in gap["cause"]


def test_mistakes_of_the_caller_are_errors_at_once(rig: Rig) -> None:
    with pytest.raises(SpecError, match=r"/nothing is no channel.*it has /observation/state"):
        rig.recorder.vector("/nothing", 1, np.zeros(3))
    with pytest.raises(SpecError, match=r"wants shape \(3,\), got \(4,\)"):
        rig.recorder.vector(MEASURED, 1, np.zeros(4))
    with pytest.raises(SpecError, match="wants shape"):
        rig.recorder.picture(IMAGE, 1, np.zeros((2, 2, 3), np.uint8))
    rig.recorder.close()


@pytest.mark.parametrize("error", [EpisodeError("The disk is full."), ZeroDivisionError("a defect")])
def test_a_failure_reaches_every_caller_and_finish(rig: Rig, error: Exception) -> None:
    rig.recorder.vector(MEASURED, 1, np.zeros(3))
    until = time.monotonic() + 2
    while not rig.log.items and time.monotonic() < until:
        time.sleep(0.005)
    rig.log.fails = lambda: error
    with pytest.raises(EpisodeError, match=r"full|defect"):
        feed(rig.recorder, 2000, 0.002)
    rig.log.fails = None
    for call in (
        lambda: rig.recorder.vector(MEASURED, 10**6, np.zeros(3)),
        lambda: rig.recorder.event(Event(1, "note")),
        lambda: rig.recorder.gap(IMAGE, 1, 0, 1, "lost"),
        lambda: rig.recorder.finish(RESULT),
    ):
        with pytest.raises(EpisodeError, match=r"full|defect"):
            call()
    # Nothing after the hole, and the file is left for recovery.
    assert rig.log.items == [(MEASURED, 1)]
    assert rig.log.ended == "closed"


def test_a_full_disk_keeps_what_was_written(tmp_path: Path) -> None:
    """A limit on the size of files stands for the disk's end."""
    import resource

    path = tmp_path / "episode-000000.mcap"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    recorder = Recorder(path, header())
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        with pytest.raises(EpisodeError, match="cannot be written"):
            feed(recorder, 100_000, 0.00005)
        with pytest.raises(EpisodeError, match="cannot be written"):
            recorder.finish(RESULT)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not path.exists()
    assert 50_000 < path.with_name(path.name + ".part").stat().st_size <= 200_000


def test_abandoned_and_left(tmp_path: Path) -> None:
    gone = Rig(tmp_path)
    gone.recorder.vector(MEASURED, 1, np.zeros(3))
    gone.recorder.abandon()
    assert gone.log.ended == "abandoned"
    with pytest.raises(EpisodeError, match="has ended"):
        gone.recorder.vector(MEASURED, 2, np.zeros(3))
    left = Rig(tmp_path)
    with left.recorder:
        left.recorder.vector(MEASURED, 1, np.zeros(3))
    assert left.log.ended == "closed"
    assert left.log.items == [(MEASURED, 1)]


def test_a_block_that_is_left_leaves_the_unfinished_file(tmp_path: Path) -> None:
    path = tmp_path / "episode-000000.mcap"
    with Recorder(path, header()) as recorder:
        recorder.vector(MEASURED, 1, np.zeros(3))
    assert not path.exists()
    assert path.with_name(path.name + ".part").exists()
    with pytest.raises(EpisodeError, match="recover"):
        Recorder(path, header())


def test_many_threads(tmp_path: Path) -> None:
    path = tmp_path / "x.mcap"
    recorder = Recorder(path, header())

    def vectors(topic: str, size: int) -> None:
        for k in range(2000):
            recorder.vector(topic, k, np.full(size, k))

    def notes() -> None:
        for k in range(500):
            recorder.event(Event(k, "note", str(k)))

    threads = [threading.Thread(target=vectors, args=args) for args in ((STATE, 2), (MEASURED, 3))]
    threads.append(threading.Thread(target=notes))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    recorder.finish(RESULT)
    episode = EpisodeReader(path).read()
    for topic in (STATE, MEASURED):
        np.testing.assert_array_equal(episode.channels[topic].values[:, 0], np.arange(2000))
    assert [event.text for event in episode.events] == [str(k) for k in range(500)]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([STATE, MEASURED]), st.booleans()), max_size=60), st.integers(1, 6))
def test_written_and_dropped_make_up_what_was_received(
    tmp_path_factory: pytest.TempPathFactory, calls: list[tuple[str, bool]], room: int
) -> None:
    rig = Rig(tmp_path_factory.mktemp("log"), vector=Bound(room, 10**6))
    rig.stall()
    for k, (topic, is_good) in enumerate(calls, 10):
        rig.recorder.vector(topic, k, np.full(2 if topic == STATE else 3, 0.0 if is_good else np.nan))
    rig.log.open.set()
    rig.recorder.finish(RESULT)
    for topic, count in rig.recorder.counts().items():
        assert count.received == count.written + count.dropped
        assert count.depth == count.waiting == 0
        assert sum(gap["count"] for gap in rig.dropped() if gap["topic"] == topic) == count.dropped
        assert sum(name == topic for name, _ in rig.log.items) == count.written
