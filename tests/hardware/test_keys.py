"""Keys as a user makes them, and a bridge that lets in only who has one."""

import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from hardware import keys as keys_module
from hardware.gateway import Listen
from hardware.keys import BridgeKeys, authorise, make, revoke
from robot.bridge.curve import ClientKeys
from robot.cli import main
from robot.errors import BridgeError
from tests.hardware.gateways import StandIn, standing_in, watch


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Keys of a bridge, of alice, who may connect, and of mallory, who may not."""
    keys = tmp_path / "keys"
    for name in ("bridge", "alice", "mallory"):
        make(keys, name)
    authorise(keys, keys / "alice.key")
    return keys


@contextmanager
def locked(folder: Path) -> Iterator[StandIn]:
    with standing_in(Listen("127.0.0.1", keys=BridgeKeys(folder))) as bridge:
        yield bridge


def test_the_command_makes_authorises_lists_and_revokes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    where = f"folder={tmp_path}/made here"
    assert main(["keys", "make=bridge", where.replace(" ", "")]) == 0
    assert main(["keys", "make=alice", where.replace(" ", "")]) == 0
    assert "armature keys authorise=alice.key" in capsys.readouterr().out
    folder = tmp_path / "madehere"
    assert main(["keys", f"authorise={folder}/alice.key", f"folder={folder}"]) == 0
    capsys.readouterr()
    assert main(["keys", f"folder={folder}"]) == 0
    listing = capsys.readouterr().out
    assert "own pairs: alice, bridge" in listing
    assert "    alice  " in listing
    assert main(["keys", "revoke=alcie", f"folder={folder}"]) == 2
    assert "Did you mean 'alice'" in capsys.readouterr().err
    assert main(["keys", "revoke=alice", f"folder={folder}"]) == 0
    assert main(["keys", "make=a", "revoke=b", f"folder={folder}"]) == 2
    assert "One thing at a time" in capsys.readouterr().err


def test_secret_files_are_their_owners_alone_and_never_overwritten(folder: Path) -> None:
    for path in folder.glob("*.key_secret"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = (folder / "alice.key_secret").read_bytes()
    with pytest.raises(BridgeError, match="not overwritten"):
        make(folder, "alice")
    assert (folder / "alice.key_secret").read_bytes() == before


@pytest.mark.parametrize("name", ["", "../alice", "a b", "a/b", ".hidden", "x" * 65])
def test_names_are_no_paths(tmp_path: Path, name: str) -> None:
    with pytest.raises(BridgeError, match="no name for keys"):
        make(tmp_path, name)


def test_what_is_authorised_is_a_public_key_once(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match=r"secret file.*Give mallory\.key"):
        authorise(folder, folder / "mallory.key_secret")
    renamed = tmp_path / "harmless.key"
    renamed.write_bytes((folder / "mallory.key_secret").read_bytes())
    with pytest.raises(BridgeError, match="secret key"):
        authorise(folder, renamed)
    with pytest.raises(BridgeError, match="already, as 'alice'"):
        authorise(folder, folder / "alice.key")
    renamed.write_bytes((folder / "mallory.key").read_bytes())
    renamed = renamed.rename(tmp_path / "alice.key")
    with pytest.raises(BridgeError, match="another key"):
        authorise(folder, renamed)
    for content in ("", "no key", "public-key = short"):
        (tmp_path / "broken.key").write_text(content)
        with pytest.raises(BridgeError, match="key"):
            authorise(folder, tmp_path / "broken.key")
    with pytest.raises(BridgeError, match="Cannot read keys"):
        authorise(folder, tmp_path / "absent.key")


def test_a_bridge_without_keys_or_clients_does_not_start(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BridgeError, match="armature keys make=bridge"):
        BridgeKeys(tmp_path)
    (folder / "bridge.key_secret").chmod(0o644)
    with pytest.raises(BridgeError, match="chmod 600"):
        BridgeKeys(folder)
    (folder / "bridge.key_secret").chmod(0o600)
    revoke(folder, "alice")
    with pytest.raises(BridgeError, match="nobody could connect"):
        BridgeKeys(folder)


def test_strangers_who_knock_make_nobody_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[Path] = []
    read = keys_module.authorised
    monkeypatch.setattr(keys_module, "authorised", lambda where: reads.append(where) or read(where))
    os.utime(folder / "authorised", (0, 0))
    keys = BridgeKeys(folder)
    for _ in range(100):
        assert not keys.callback("*", b"?" * 40)
    assert len(reads) == 1
    revoke(folder, "alice")
    assert keys.names() == {}
    authorise(folder, folder / "mallory.key")
    assert set(keys.names().values()) == {"mallory"}
    (folder / "authorised" / "mallory.key").unlink()
    (folder / "authorised").rmdir()
    assert keys.names() == {}


def test_client_keys_need_the_bridges(folder: Path, tmp_path: Path) -> None:
    assert ClientKeys.load(folder / "alice.key_secret").bridge == BridgeKeys(folder).public
    (folder / "bridge.key").unlink()
    with pytest.raises(BridgeError, match="copy the bridge's public key"):
        ClientKeys.load(folder / "alice.key_secret")
    with pytest.raises(BridgeError, match="no secret key"):
        ClientKeys.load(folder / "alice.key")


def test_an_authorised_client_drives_under_the_name_of_its_key(folder: Path) -> None:
    with locked(folder) as bridge, bridge.client("the boss", keys=folder / "alice.key_secret") as alice:
        alice.acquire()
        assert alice.state().t_ns > 0
        assert alice.holder() == "alice"
        alice.arm()
        alice.estop()
        alice.reset()


def test_a_stranger_is_told_why(folder: Path) -> None:
    with locked(folder) as bridge:
        with (
            pytest.raises(BridgeError, match="does not know this client's key"),
            bridge.client(keys=folder / "mallory.key_secret", timeout_s=0.6),
        ):
            pass
        with pytest.raises(BridgeError, match=r"handshake fails.*may want keys"), bridge.client(timeout_s=0.6):
            pass


def test_another_bridges_key_is_told(folder: Path, tmp_path: Path) -> None:
    make(tmp_path / "other", "bridge")
    (folder / "bridge.key").write_bytes((tmp_path / "other" / "bridge.key").read_bytes())
    with (
        locked(folder) as bridge,
        pytest.raises(BridgeError, match=r"handshake fails.*bridge\.key"),
        bridge.client(keys=folder / "alice.key_secret", timeout_s=0.6),
    ):
        pass


def test_a_client_with_keys_finds_out_that_a_bridge_has_none(folder: Path) -> None:
    with (
        standing_in() as bridge,
        pytest.raises(BridgeError, match=r"handshake fails.*no keys"),
        bridge.client(keys=folder / "alice.key_secret", timeout_s=0.6),
    ):
        pass


def test_clients_are_authorised_and_revoked_while_the_bridge_runs(folder: Path) -> None:
    with locked(folder) as bridge:
        authorise(folder, folder / "mallory.key")
        with bridge.client(keys=folder / "mallory.key_secret") as client:
            client.acquire()
            watch(client, 60)
            revoke(folder, "mallory")
            with pytest.raises(BridgeError, match="No client of this session is known"):
                watch(client)
            assert bridge.gateway.front.lease.holder(time.monotonic_ns()) == ""
            with pytest.raises(BridgeError, match="Connect anew"):
                client.acquire()


@pytest.mark.parametrize("channel", ["control", "command", "state", "estop"])
def test_no_channel_hears_or_tells_a_stranger_anything(folder: Path, channel: str) -> None:
    with locked(folder) as bridge:
        before = bridge.gateway.front.counters()
        for keys in (None, ClientKeys.load(folder / "mallory.key_secret")):
            socket = zmq.Context.instance().socket(zmq.SUB if channel == "state" else zmq.DEALER)
            socket.setsockopt(zmq.LINGER, 0)
            if keys is not None:
                keys.apply(socket)
            if channel == "state":
                socket.setsockopt(zmq.SUBSCRIBE, b"")
            socket.connect(bridge.gateway.schema.endpoints[channel])
            if channel != "state":
                socket.send(b"rubbish")
            assert not socket.poll(200)
            socket.close()
        assert bridge.gateway.front.counters() == before
