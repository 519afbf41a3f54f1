import socket
from pathlib import Path

import pytest
import zmq

from hardware.gateway import Listen
from hardware.keys import BridgeKeys, authorise, make
from hardware.sockets import HANDSHAKE_MS, addresses, bound, require_safe
from robot.bridge.client import BridgeClient
from robot.errors import BridgeError
from tests.hardware.gateways import new_gateway, standing_in


@pytest.fixture
def keys(tmp_path: Path) -> BridgeKeys:
    for name in ("bridge", "alice"):
        make(tmp_path / "keys", name)
    authorise(tmp_path / "keys", tmp_path / "keys" / "alice.key")
    return BridgeKeys(tmp_path / "keys")


@pytest.mark.parametrize("host", ["0.0.0.0", "192.168.1.7", "::", "*", "robot.local", "localhost.evil.org", ""])
def test_other_addresses_than_loopback_need_keys(host: str, keys: BridgeKeys) -> None:
    with pytest.raises(BridgeError, match="loopback"):
        require_safe(host, None)
    with pytest.raises(BridgeError, match="loopback"):
        new_gateway(Listen(host))
    require_safe(host, keys)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "ipc:///tmp/x"])
def test_this_machine_needs_none(host: str) -> None:
    require_safe(host, None)


def test_ports_follow_each_other() -> None:
    names = ("a", "b")
    assert addresses("127.0.0.1", 5555, names) == {"a": "tcp://127.0.0.1:5555", "b": "tcp://127.0.0.1:5556"}
    assert addresses("::1", 0, names) == {"a": "tcp://[::1]:*", "b": "tcp://[::1]:*"}


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_tcp(host: str) -> None:
    with standing_in(Listen(host)) as bridge, bridge.client() as client:
        assert client.state().t_ns > 0


def test_a_bridge_on_every_interface_is_reached_where_it_was_found(tmp_path: Path, keys: BridgeKeys) -> None:
    with standing_in(Listen("0.0.0.0", keys=keys)) as bridge:
        endpoint = bridge.endpoint.replace("0.0.0.0", "127.0.0.1")
        with BridgeClient(endpoint, keys=tmp_path / "keys" / "alice.key_secret") as client:
            assert client.state().t_ns > 0


def test_ipc_in_a_folder_of_ones_own(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with standing_in(Listen(f"ipc://{folder}")) as bridge, bridge.client() as client:
        assert bridge.endpoint == f"ipc://{folder}/control"
        assert folder.stat().st_mode & 0o777 == 0o700
        client.acquire()
        assert client.state().t_ns > 0
        with pytest.raises(BridgeError, match="in use"):
            new_gateway(Listen(f"ipc://{folder}"))
        assert client.state().t_ns > 0
    # What a bridge that was killed left behind hinders nobody.
    (folder / "control").touch()
    with standing_in(Listen(f"ipc://{folder}")) as bridge, bridge.client() as client:
        client.state()


def test_ipc_in_a_folder_that_others_may_enter_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "open"
    folder.mkdir()
    folder.chmod(0o755)
    with pytest.raises(BridgeError, match="chmod 700"):
        addresses(f"ipc://{folder}", 0, ("a",))
    folder.chmod(0o700)
    link = tmp_path / "link"
    link.symlink_to(folder)
    with pytest.raises(BridgeError, match="not a folder of yours"):
        addresses(f"ipc://{link}", 0, ("a",))


@pytest.mark.parametrize("path", ["relative", "@abstract", "/" + "x" * 100])
def test_ipc_paths_that_cannot_be(path: str) -> None:
    with pytest.raises(BridgeError, match="no absolute path"):
        addresses(f"ipc://{path}", 0, ("a",))
    with pytest.raises(BridgeError, match="parent exists"):
        addresses("ipc:///nowhere/at/all", 0, ("a",))


def test_what_listens_and_says_nothing_is_told_from_nobody() -> None:
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        endpoint = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        with pytest.raises(BridgeError, match="something listens there, but it hangs"):
            BridgeClient(endpoint, timeout_s=0.6).__enter__()
    with pytest.raises(BridgeError, match="Start one with"):
        BridgeClient(endpoint, timeout_s=0.6).__enter__()


@pytest.mark.slow
def test_whoever_connects_and_says_nothing_is_cut_off() -> None:
    with (
        standing_in() as bridge,
        socket.create_connection(("127.0.0.1", int(bridge.endpoint.rpartition(":")[2]))) as mute,
    ):
        mute.settimeout(1.5 * HANDSHAKE_MS / 1000)
        while mute.recv(100):
            pass
        with bridge.client() as client:
            client.state()


def test_a_port_in_use_is_an_error() -> None:
    with zmq.Context() as context:
        first, endpoint = bound(context, zmq.ROUTER, "tcp://127.0.0.1:*")
        with pytest.raises(BridgeError, match="Another bridge may run"):
            bound(context, zmq.ROUTER, endpoint)
        first.close()
