"""A client's sockets, one a channel, and why nobody answers on them."""

from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import recv_monitor_message

from robot.bridge.curve import ClientKeys
from robot.bridge.wire import MAX_FRAME
from robot.errors import BridgeError

_QUEUE = 64
_EVENTS = (
    zmq.EVENT_CONNECTED
    | zmq.EVENT_HANDSHAKE_FAILED_AUTH
    | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL
    | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)


class Connection:
    """Sockets to one bridge, made when they are asked for.

    Attributes:
        endpoints: Address of each channel but `control`, as the bridge gave them at hello.
    """

    def __init__(self, endpoint: str, keys: str | Path = "") -> None:
        """Nothing is connected yet.

        Args:
            endpoint: Address of the control channel.
            keys: A client's secret file; empty for none.

        Raises:
            BridgeError: A key file is missing or not private.
        """
        self._endpoint = endpoint
        self.endpoints: dict[str, str] = {}
        self._keys = ClientKeys.load(keys) if keys else None
        self._context: zmq.Context[Any] = zmq.Context()
        self._sockets: dict[str, zmq.Socket[Any]] = {}
        self._monitors: dict[str, zmq.Socket[Any]] = {}
        self._seen = 0

    def socket(self, channel: str) -> zmq.Socket[Any]:
        """The socket of a channel.

        Raises:
            BridgeError: The address is none.
        """
        if channel in self._sockets:
            return self._sockets[channel]
        socket = self._context.socket(zmq.SUB if channel == "state" else zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
        if channel == "state":
            socket.setsockopt(zmq.CONFLATE, 1)
            socket.setsockopt(zmq.SUBSCRIBE, b"")
        else:
            socket.setsockopt(zmq.RCVHWM, _QUEUE)
            socket.setsockopt(zmq.SNDHWM, _QUEUE)
        if self._keys is not None:
            self._keys.apply(socket)
        if "[" in self._endpoint:
            socket.setsockopt(zmq.IPV6, 1)
        if channel == "control":
            self._monitors[channel] = socket.get_monitor_socket(_EVENTS)
        try:
            socket.connect(self._address(channel))
        except zmq.ZMQError as error:
            # With its monitor, for which closing the context would wait for ever.
            self._sockets[channel] = socket
            self.drop(channel)
            raise BridgeError(
                f"{self._endpoint!r} is no address of a bridge: {error}. One is tcp://127.0.0.1:5555."
            ) from error
        self._sockets[channel] = socket
        return socket

    def join(self, socket: zmq.Socket[Any], address: str) -> None:
        """Connect a socket that somebody else made to an address that hello gave, with this client's keys."""
        if self._keys is not None:
            self._keys.apply(socket)
        if "[" in self._endpoint:
            socket.setsockopt(zmq.IPV6, 1)
        socket.connect(self._reachable(address))

    def _address(self, channel: str) -> str:
        return self._endpoint if channel == "control" else self._reachable(self.endpoints[channel])

    def _reachable(self, address: str) -> str:
        """As the bridge gave it, but on the machine where we found the control channel: it may listen on 0.0.0.0."""
        if not (address.startswith("tcp://") and self._endpoint.startswith("tcp://")):
            return address
        return f"{self._endpoint.rpartition(':')[0]}:{address.rpartition(':')[2]}"

    def drop(self, channel: str) -> None:
        """Close the socket of a channel; the next one is new."""
        socket = self._sockets.pop(channel, None)
        if socket is None:
            return
        self._note_events()
        monitor = self._monitors.pop(channel, None)
        if monitor is not None:
            socket.disable_monitor()
            monitor.close()
        socket.close()

    def close(self) -> None:
        """Close all; may be called twice."""
        for channel in list(self._sockets):
            self.drop(channel)
        self._context.term()

    def forget(self) -> None:
        """What was seen before counts no more; a new request begins."""
        self._note_events()
        self._seen = 0

    def why_silent(self, op: str) -> str:
        """What the connection's handshake says about why a request was not answered, and what to do."""
        self._note_events()
        start = f"No bridge answers {op!r} at {self._endpoint}"
        if self._seen & zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            return f"{start}: it does not know this client's key. On its machine: `armature keys authorise=<name>.key`."
        if self._seen & (zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL):
            return f"{start}: something listens there, but the handshake fails. {self._key_advice()}"
        if self._seen & zmq.EVENT_CONNECTED:
            return f"{start}: something listens there, but it hangs or is no bridge."
        return f"{start}. Start one with `armature bridge arm=...`, or give its address."

    def _key_advice(self) -> str:
        if self._keys is None:
            return "The bridge may want keys: make them with `armature keys make=<name>` and give keys=..."
        return "It has no keys, or others than the bridge.key beside this client's: copy the bridge's there again."

    def _note_events(self) -> None:
        for monitor in self._monitors.values():
            while monitor.poll(0):
                self._seen |= int(recv_monitor_message(monitor)["event"])
