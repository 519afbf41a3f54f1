"""The journal: every state, every chunk with its verdict, from the gateway to whoever records."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq

from hardware.gateway import Listen
from hardware.keys import BridgeKeys, authorise, make
from hardware.shared_memory import LOST, STATE_SLOTS, VERDICT_SLOTS, Command, Kind, SharedMemory
from robot.bridge.client import BridgeClient
from robot.bridge.journal import Taken, subscribed, taken
from robot.bridge.schema import INDEX, BridgeSchema, Mode, Priority
from robot.bridge.wire import Frame, FrameType, Reason, chunk_payload, decode
from robot.contract import ActionChunk
from robot.control.plan import Reject
from robot.errors import BridgeError, WireError
from tests.hardware.gateways import StandIn, standing_in

ROWS = np.arange(28.0).reshape(4, 7) / 100
DT_S = 0.05


class Listener:
    """Takes what the journal of a bridge says."""

    def __init__(self, socket: zmq.Socket[Any]) -> None:
        self.socket = socket

    def next(self, kind: FrameType | None = None) -> Frame:
        until = time.monotonic() + 3
        while time.monotonic() < until:
            if self.socket.poll(100):
                frame = decode(self.socket.recv())
                if kind in (None, frame.type):
                    return frame
        raise AssertionError(f"no {kind}")


@contextmanager
def listening(client: BridgeClient) -> Iterator[Listener]:
    context: zmq.Context[Any] = zmq.Context()
    listener = Listener(subscribed(context, client))
    listener.next(FrameType.STATE)
    try:
        yield listener
    finally:
        listener.socket.close()
        context.term()


@pytest.fixture
def bridge() -> Iterator[StandIn]:
    with standing_in() as one:
        yield one


def drives(client: BridgeClient) -> None:
    client.acquire()
    client.arm()
    while client.state().mode != Mode.ARMED:
        pass


def test_every_state_comes_once_and_in_order(bridge: StandIn) -> None:
    with bridge.client() as client, listening(client) as journal:
        frames = [journal.next(FrameType.STATE) for _ in range(300)]
    cycles = [frame.floats()[INDEX["cycle"]] for frame in frames]
    assert np.diff(cycles).tolist() == [1] * 299
    assert np.diff([frame.sequence for frame in frames]).tolist() == [1] * 299


def test_a_gateway_that_was_away_catches_up(bridge: StandIn) -> None:
    with bridge.client() as client, listening(client) as journal:
        refresh = bridge.gateway.front.refresh

        def slow() -> None:
            time.sleep(STATE_SLOTS * 0.002 / 3)
            refresh()

        bridge.gateway.front.refresh = slow  # type: ignore[method-assign]
        frames = [journal.next(FrameType.STATE) for _ in range(100)]
        bridge.gateway.front.refresh = refresh  # type: ignore[method-assign]
        sent = {frame.t_send_ns for frame in frames}
    assert len(sent) < 40
    assert np.diff([frame.floats()[INDEX["cycle"]] for frame in frames]).tolist() == [1] * 99


def test_what_is_lost_for_good_leaves_a_gap_in_the_numbers(bridge: StandIn) -> None:
    with bridge.client() as client, listening(client) as journal:
        recall = bridge.memory.states.recall
        own = bridge.gateway._journal._state
        bridge.memory.states.recall = (  # type: ignore[method-assign]
            lambda count, out: not (out is own and count % 10 == 0) and recall(count, out)
        )
        numbers = [journal.next(FrameType.STATE).sequence for _ in range(50)]
        bridge.memory.states.recall = recall  # type: ignore[method-assign]
    assert set(np.diff(numbers).tolist()) == {1, 2}
    assert not [number for number in numbers[5:] if number % 10 == 0]


def test_a_chunk_comes_with_its_verdict_before_the_state_that_it_shows_in(bridge: StandIn) -> None:
    with bridge.client(priority=Priority.TELEOP) as client, listening(client) as journal:
        drives(client)
        t0_ns = client.now_ns() + 5_000_000
        sequence = client.send_chunk(ActionChunk(ROWS, DT_S), t0_ns)
        before = 0.0
        while (frame := journal.next()).type != FrameType.TAKEN:
            before = frame.floats()[INDEX["last_sequence"]]
        got, after = taken(frame), journal.next().floats()
    assert before < sequence
    assert after[INDEX["last_sequence"]] == sequence
    assert after[INDEX["t_ns"]] >= got.t_ns
    assert (got.sequence, got.driver, got.priority) == (sequence, client.public_id, Priority.TELEOP)
    assert (got.verdict, got.t0_ns, got.dt_s) == (Reject.NONE, t0_ns, DT_S)
    np.testing.assert_array_equal(got.rows, ROWS)


def test_a_chunk_that_the_arm_did_not_take_says_why(bridge: StandIn) -> None:
    bridge.verdict = Reject.TOO_LATE
    with bridge.client() as client, listening(client) as journal:
        drives(client)
        numbers = []
        for _ in range(5):
            client.send_chunk(ActionChunk(ROWS, DT_S), client.now_ns())
            frame = journal.next(FrameType.TAKEN)
            numbers.append(frame.sequence)
            assert taken(frame).verdict == Reject.TOO_LATE
    assert np.diff(numbers).tolist() == [1] * 4


def test_the_secret_of_a_session_is_not_told(bridge: StandIn) -> None:
    with bridge.client() as client, listening(client) as journal:
        drives(client)
        client.send_chunk(ActionChunk(ROWS, DT_S), client.now_ns())
        client.tell_device(ROWS[0])
        secret = client._session.to_bytes(8, "little")
        for kind in (FrameType.DEVICE, FrameType.TAKEN):
            frame = journal.next(kind)
            assert frame.session != client._session
            assert secret not in frame.payload
            assert np.float64(client._session).tobytes() not in frame.payload


def test_what_a_device_asked_for_is_passed_on(bridge: StandIn) -> None:
    with bridge.client() as client, listening(client) as journal:
        drives(client)
        begin_ns = client.now_ns()
        client.tell_device(ROWS[1])
        frame = journal.next(FrameType.DEVICE)
        assert frame.session == client.public_id
        assert begin_ns <= frame.t_exec_ns <= client.now_ns()
        np.testing.assert_array_equal(frame.floats()[3:], ROWS[1])
        assert bridge.chunks == []
        for bad in (np.zeros(3), np.full(7, np.nan)):
            client.tell_device(bad)
        time.sleep(0.05)
        assert bridge.gateway.front.counters() == {str(Reason.ROWS): 2}
        # One that would come into the log long after its time would keep all that follow out of it.
        client._send(FrameType.DEVICE, chunk_payload(ROWS[:1], DT_S), client.now_ns() + 10**10)
        time.sleep(0.05)
        assert bridge.gateway.front.counters()[str(Reason.CLOCK)] == 1


def test_who_does_not_drive_has_no_device(bridge: StandIn) -> None:
    with bridge.client() as client:
        client.tell_device(ROWS[0])
        time.sleep(0.05)
        assert bridge.gateway.front.counters() == {str(Reason.NO_LEASE): 1}


def test_nobody_listens_and_nothing_is_kept(bridge: StandIn) -> None:
    with bridge.client() as client:
        drives(client)
        with listening(client):
            pass
        until = time.monotonic() + 3
        while bridge.gateway._journal.is_heard and time.monotonic() < until:
            time.sleep(0.01)
        assert not bridge.gateway._journal.is_heard
        for _ in range(50):
            client.send_chunk(ActionChunk(ROWS, DT_S), client.now_ns())
            client.state()
        assert not bridge.gateway._journal._waiting
        with listening(client) as journal:
            numbers = [journal.next(FrameType.STATE).sequence for _ in range(50)]
        assert np.diff(numbers).tolist() == [1] * 49


def test_each_listener_hears_all_whoever_comes_or_goes(bridge: StandIn) -> None:
    with bridge.client() as client, listening(client) as first:
        numbers = [first.next(FrameType.STATE).sequence for _ in range(20)]
        with listening(client) as second:
            numbers += [first.next(FrameType.STATE).sequence for _ in range(20)]
            others = [second.next(FrameType.STATE).sequence for _ in range(20)]
        numbers += [first.next(FrameType.STATE).sequence for _ in range(50)]
    assert np.diff(numbers).tolist() == [1] * 89
    assert np.diff(others).tolist() == [1] * 19


def test_a_listener_that_is_stuck_slows_nobody_down(bridge: StandIn) -> None:
    with bridge.client() as client, listening(client), bridge.client() as other:
        drives(client)
        time.sleep(0.5)
        ages = []
        for _ in range(200):
            client.send_chunk(ActionChunk(ROWS, DT_S), client.now_ns())
            ages.append(other.now_ns() - other.state().t_ns)
    assert np.median(ages) < 2_000_000


def test_a_listener_may_say_what_it_wants(bridge: StandIn) -> None:
    with bridge.client() as client, listening(client) as journal:
        context: zmq.Context[Any] = zmq.Context()
        socket = context.socket(zmq.XSUB)
        socket.setsockopt(zmq.LINGER, 0)
        client.join(socket, client.schema.endpoints["journal"])
        for word in (b"\x02", b"", b"\x00\x01", b"x" * 1000):
            socket.send(word)
        time.sleep(0.05)
        assert journal.next(FrameType.STATE).sequence > 0
        socket.close()
        context.term()


def test_only_who_has_a_key_listens(tmp_path: Path) -> None:
    for name in ("bridge", "alice", "mallory"):
        make(tmp_path / "keys", name)
    authorise(tmp_path / "keys", tmp_path / "keys" / "alice.key")
    with standing_in(Listen("127.0.0.1", keys=BridgeKeys(tmp_path / "keys"))) as bridge:
        with bridge.client(keys=tmp_path / "keys" / "alice.key_secret") as client, listening(client):
            pass
        context: zmq.Context[Any] = zmq.Context()
        socket = context.socket(zmq.SUB)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.SUBSCRIBE, b"")
        socket.connect(bridge.gateway.schema.endpoints["journal"])
        assert not socket.poll(300)
        socket.close()
        context.term()


def test_an_older_bridge_has_none(bridge: StandIn) -> None:
    data = bridge.gateway.schema.to_json()
    del data["endpoints"]["journal"]
    with bridge.client() as client, zmq.Context() as context:
        client.schema = BridgeSchema.from_json(data)
        with pytest.raises(BridgeError, match="no journal to record from"):
            subscribed(context, client)
        client.tell_device(ROWS[0])


def told() -> Taken:
    return Taken(7, 2**47 + 1, 2, 10**15 + 1, Reject.ROTATION, 5, 0.02, ROWS)


def test_a_chunk_survives_the_wire() -> None:
    got = taken(Frame(FrameType.TAKEN, told().payload(), t_exec_ns=5))
    np.testing.assert_array_equal(got.rows, ROWS)
    assert {**vars(got), "rows": 0} == {**vars(told()), "rows": 0}


@pytest.mark.parametrize(("at", "value"), [(0, np.nan), (4, 99.0), (5, 0.0), (6, 5.0), (6, -4.0), (7, 0.5), (6, 1e300)])
def test_a_payload_that_is_no_chunk_is_refused(at: int, value: float) -> None:
    flat = np.frombuffer(told().payload(), "<f8").copy()
    flat[at] = value
    with pytest.raises(WireError):
        taken(Frame(FrameType.TAKEN, flat.tobytes()))
    with pytest.raises(WireError):
        taken(Frame(FrameType.TAKEN, flat[:5].tobytes()))
    with pytest.raises(WireError):
        taken(Frame(FrameType.STATE, told().payload()))


def test_verdicts_belong_to_their_commands() -> None:
    memory = SharedMemory.create()
    ring = memory.commands
    assert ring.verdict(1) is None
    for number in range(1, 2 * VERDICT_SLOTS):
        ring.push(Command(Kind.CHUNK, 1, number, rows=np.zeros((1, 7))))
        assert ring.pushed == number
        assert ring.verdict(number) is None
        ring.pop()
        assert ring.verdict(number) is None
        ring.judge(number % 12, 1000 + number)
        assert ring.verdict(number) == (number % 12, 1000 + number)
    assert ring.verdict(5) == (LOST, 0)
    memory.close()


def test_states_of_a_while_ago_are_recalled_and_older_ones_are_not() -> None:
    memory = SharedMemory.create()
    out = np.zeros(3)
    for value in range(1, STATE_SLOTS + 6):
        memory.states.write(np.full(3, float(value)))
    assert memory.states.recall(6, out)
    assert out.tolist() == [6.0] * 3
    assert not memory.states.recall(5, out)
    assert not memory.states.recall(STATE_SLOTS + 6, out)
    memory.close()
