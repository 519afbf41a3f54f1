"""The journal of a bridge: every state and every chunk with its verdict, in order, for whoever records.

The state channel keeps only the newest state, for whoever drives; the journal is a channel beside it that keeps a few
seconds of them for each subscriber. Its frames are

- STATE, laid out like those of the state channel, numbered by the states that the bridge publishes;
- TAKEN, a chunk that the gateway passed on and what the real-time process made of it. It comes before the first state
  in which it may show, and carries the public id of the session, which is no secret;
- DEVICE, what a client says its device asked for.

Each kind has numbers of its own that grow by one: a gap is a frame that was lost. A subscriber that is too slow loses
frames, and nobody waits for it.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import zmq

from robot.bridge.client import BridgeClient
from robot.bridge.wire import MAX_FRAME, Frame, FrameType, Reason
from robot.control.plan import MAX_ROWS, Reject
from robot.errors import BridgeError, WireError

CHANNEL = "journal"
QUEUE = 4096
"""Frames that wait at either end: 8 s of states at 500 Hz, some megabytes."""
_HEAD = 8


@dataclass(frozen=True)
class Taken:
    """A chunk that the real-time process has looked at.

    Attributes:
        sequence: Of the chunk, counted by its sender.
        driver: Public id of the session that sent it.
        priority: `Priority` of the lease at that time.
        t_ns: Cycle in which it was looked at; the `t_ns` of that cycle's state.
        verdict: `NONE` where it was accepted.
        t0_ns: When row 0 begins [ns].
        dt_s: Length of a row [s].
        rows: Actions (N, A) as they were sent.
    """

    sequence: int
    driver: int
    priority: int
    t_ns: int
    verdict: Reject
    t0_ns: int
    dt_s: float
    rows: np.ndarray

    def payload(self) -> bytes:
        """Eight numbers and the rows, float64; integers below 2^53 are exact."""
        head = (self.sequence, self.driver, self.priority, self.t_ns, self.verdict, self.dt_s, *self.rows.shape)
        return np.concatenate([np.array(head, "<f8"), self.rows.astype("<f8").ravel()]).tobytes()


def taken(frame: Frame) -> Taken:
    """The chunk that a TAKEN frame tells of.

    Raises:
        WireError: It tells of none.
    """
    flat = frame.floats()
    if frame.type != FrameType.TAKEN or len(flat) < _HEAD or not np.isfinite(flat[:_HEAD]).all():
        raise WireError(f"Not a chunk with its verdict: {frame.type.name} of {len(flat)} numbers.", Reason.PAYLOAD)
    sequence, driver, priority, t_ns, verdict, dt_s, count, width = flat[:_HEAD].tolist()
    whole = 1 <= count <= MAX_ROWS and width >= 1 and count * width == len(flat) - _HEAD and 0 < dt_s <= 1
    if not whole or verdict not in tuple(Reject):
        raise WireError(f"A chunk with its verdict announces {count} × {width} numbers.", Reason.ROWS)
    rows = flat[_HEAD:].reshape(int(count), int(width))
    return Taken(
        int(sequence), int(driver), int(priority), int(t_ns), Reject(int(verdict)), frame.t_exec_ns, dt_s, rows
    )


def subscribed(context: zmq.Context[Any], client: BridgeClient) -> zmq.Socket[Any]:
    """A socket that receives the journal of the bridge that `client` is connected to.

    Raises:
        BridgeError: The bridge is too old to have one.
    """
    if CHANNEL not in client.schema.endpoints:
        raise BridgeError(f"The bridge at {client.endpoint} has no journal to record from. Install this version there.")
    socket = context.socket(zmq.SUB)
    for option, value in {zmq.LINGER: 0, zmq.RCVHWM: QUEUE, zmq.MAXMSGSIZE: MAX_FRAME}.items():
        socket.setsockopt(option, value)
    socket.setsockopt(zmq.SUBSCRIBE, b"")
    client.join(socket, client.schema.endpoints[CHANNEL])
    return socket
