"""Sockets of the bridge: bounded in every direction, and open to other machines only behind keys."""

import ipaddress
import os
import socket as unix
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import zmq
from zmq.auth.thread import ThreadAuthenticator

from hardware.keys import BridgeKeys
from robot.bridge.wire import MAX_FRAME
from robot.errors import BridgeError

IPC = "ipc://"
HANDSHAKE_MS = 2000
"""Longest handshake; whoever connects and says nothing is cut off."""
HEARTBEAT_MS = 500
DEAD_MS = 2000
"""A peer that answers no heartbeat of the transport for this long is cut off."""
QUEUE = 64
"""Frames that wait at a socket; more are left with their sender."""
_LONGEST_PATH = 80
"""The kernel takes 107 bytes with the channel's name."""


def require_safe(host: str, keys: BridgeKeys | None) -> None:
    """Refuse to listen where anybody could reach the arm.

    Raises:
        BridgeError: Without keys, `host` is neither an address of the loopback interface nor a folder of this machine.
    """
    if keys is not None or host.startswith(IPC):
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise BridgeError(
            f"host={host!r} is not a loopback address. Without keys anybody on that network could move the arm: make "
            "keys (`armature keys make=bridge`) and give keys=..., or listen on 127.0.0.1 and use an SSH tunnel "
            "(`ssh -L`)."
        )


def addresses(host: str, port: int, names: Iterable[str]) -> dict[str, str]:
    """Where each of some channels listens.

    Args:
        host: Address of an interface; or `ipc://` and the absolute path of a folder, made if it is missing.
        port: Of the first channel, the others take the next ones; 0 for any that are free. Not used by ipc.
        names: Of the channels.

    Raises:
        BridgeError: The folder is open to other users, or its path is too long for the kernel.
    """
    if host.startswith(IPC):
        folder = _private_folder(host.removeprefix(IPC))
        return {name: f"{IPC}{folder / name}" for name in names}
    where = f"[{host}]" if ":" in host else host
    return {name: f"tcp://{where}:{port + offset if port else '*'}" for offset, name in enumerate(names)}


def authenticator(context: zmq.Context[Any], keys: BridgeKeys | None) -> ThreadAuthenticator | None:
    """Who decides in this process, for all its sockets with `keys`, which client may connect. Start it before `bound`.

    Its `stop` comes before the end of the context.
    """
    if keys is None:
        return None
    guard = ThreadAuthenticator(context)
    guard.start()
    guard.configure_curve_callback("*", keys)
    return guard


def bound(
    context: zmq.Context[Any], kind: int, address: str, keys: BridgeKeys | None = None, queue: int = QUEUE
) -> tuple[zmq.Socket[Any], str]:
    """A listening socket and its address.

    Args:
        context: Of this process, with an `authenticator` if there are keys.
        kind: `zmq.ROUTER`, `zmq.PUB` or `zmq.XPUB`.
        address: One of `addresses`.
        keys: The bridge's, to let in only who has a key.
        queue: Frames that wait at either end; 0 for the newest alone (one frame a message), for `zmq.PUB` only.

    Raises:
        BridgeError: The port or the path is in use.
    """
    socket = context.socket(kind)
    options = {zmq.LINGER: 0, zmq.MAXMSGSIZE: MAX_FRAME, zmq.HANDSHAKE_IVL: HANDSHAKE_MS}
    options |= {zmq.HEARTBEAT_IVL: HEARTBEAT_MS, zmq.HEARTBEAT_TIMEOUT: DEAD_MS, zmq.HEARTBEAT_TTL: DEAD_MS}
    options |= {zmq.RCVHWM: queue, zmq.SNDHWM: queue} if queue else {zmq.CONFLATE: 1}
    if "[" in address:
        options |= {zmq.IPV6: 1}
    for option, value in options.items():
        socket.setsockopt(option, value)
    if keys is not None:
        socket.setsockopt(zmq.CURVE_SERVER, 1)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, keys.secret)
    try:
        _require_free(address)
        socket.bind(address)
    except (zmq.ZMQError, OSError) as error:
        socket.close()
        raise BridgeError(
            f"Cannot listen on {address.removeprefix('tcp://')}: {error}. Another bridge may run there; stop it, or "
            "choose host=... or port=... (a bridge takes five ports in a row, and one more for each camera)."
        ) from error
    return socket, socket.getsockopt_string(zmq.LAST_ENDPOINT).rstrip("\0")


def _private_folder(path: str) -> Path:
    folder = Path(path)
    if not folder.is_absolute() or len(path) > _LONGEST_PATH:
        raise BridgeError(f"host={IPC}{path} is no absolute path of at most {_LONGEST_PATH} bytes.")
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()
    except OSError as error:
        raise BridgeError(f"Cannot listen in {folder}: {error}. Choose a folder whose parent exists.") from error
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise BridgeError(
            f"{folder} is not a folder of yours alone, so that others could move the arm: `chmod 700 {folder}`, or "
            "choose a new one."
        )
    return folder


def _require_free(address: str) -> None:
    """A path that somebody listens on is in use. ZMQ would take it over, and a dead one's is left to it."""
    if not address.startswith(IPC):
        return
    with unix.socket(unix.AF_UNIX, unix.SOCK_STREAM) as probe:
        if probe.connect_ex(address.removeprefix(IPC)) == 0:
            raise OSError("Address already in use")
