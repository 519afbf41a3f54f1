"""Sockets of the bridge: bounded in every direction, on this machine only."""

import ipaddress
from typing import Any

import zmq

from robot.bridge.wire import MAX_FRAME
from robot.errors import BridgeError


def require_loopback(host: str) -> None:
    """Refuse to listen where others could reach the arm.

    Raises:
        BridgeError: `host` is not an address of the loopback interface.
    """
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise BridgeError(
            f"host={host!r} is not a loopback address. Without keys anybody on that network could move the arm, so the "
            "bridge listens on 127.0.0.1 only. From another machine use an SSH tunnel (`ssh -L`)."
        )


def bound(context: zmq.Context[Any], kind: int, host: str, port: int) -> tuple[zmq.Socket[Any], str]:
    """A listening socket and its address.

    Args:
        context: Of this process.
        kind: `zmq.ROUTER` or `zmq.PUB`.
        host: Loopback address.
        port: Port, or 0 for any that is free.

    Raises:
        BridgeError: The port is in use.
    """
    socket = context.socket(kind)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    if kind == zmq.PUB:
        socket.setsockopt(zmq.CONFLATE, 1)
    else:
        socket.setsockopt(zmq.RCVHWM, 64)
        socket.setsockopt(zmq.SNDHWM, 64)
    where = f"[{host}]" if ":" in host else host
    if ":" in host:
        socket.setsockopt(zmq.IPV6, 1)
    try:
        socket.bind(f"tcp://{where}:{port or '*'}")
    except zmq.ZMQError as error:
        socket.close()
        raise BridgeError(
            f"Cannot listen on {host}:{port}: {error}. Another bridge may run there; stop it, or choose port=... "
            "(a bridge takes four ports in a row)."
        ) from error
    return socket, socket.getsockopt(zmq.LAST_ENDPOINT).decode()
