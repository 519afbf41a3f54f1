import socket
from pathlib import Path

from hardware.doctor import network
from hardware.doctor.findings import Level
from tests.hardware.doctor.machines import PROC_TCP, built, listening


def process(root: Path, number: int, name: str, line: str, inode: int) -> None:
    built(root, {f"proc/{number}/comm": name + "\n", f"proc/{number}/cmdline": line.replace(" ", "\0")})
    (root / f"proc/{number}/fd").mkdir()
    (root / f"proc/{number}/fd/7").symlink_to(f"socket:[{inode}]")


def test_free_ports(tmp_path: Path) -> None:
    root = built(tmp_path, {"proc/net/tcp": PROC_TCP + listening(5560, 1) + listening(5556, 2, state="01")})
    found = network._ports(root, 5555)
    assert (found.level, found.value) == (Level.OK, "5555 to 5559 are free")


def test_ports_that_something_else_holds(tmp_path: Path) -> None:
    built(tmp_path, {"proc/net/tcp": PROC_TCP + listening(5556, 77) + listening(5565, 78), "proc/net/tcp6": PROC_TCP})
    process(tmp_path, 4242, "adb", "adb server", 77)
    found = network._ports(tmp_path, 5555)
    assert (found.level, found.value) == (Level.WARN, "5556 (command): adb (4242)")
    # 5565 to 5569 are not free either.
    assert found.fix[0] == "armature bridge port=5575"


def test_a_bridge_that_runs_is_no_fault(tmp_path: Path) -> None:
    built(tmp_path, {"proc/net/tcp": PROC_TCP + listening(5555, 77)})
    process(tmp_path, 99, "armature", "python .venv/bin/armature bridge arm=twin", 77)
    found = network._ports(tmp_path, 5555)
    assert found.level == Level.OK
    assert "armature (99)" in found.value


def test_somebody_elses_process(tmp_path: Path) -> None:
    found = network._ports(built(tmp_path, {"proc/net/tcp": PROC_TCP + listening(5555, 77)}), 5555)
    assert found.level == Level.WARN
    assert "another user's process" in found.value


def test_a_port_of_this_machine_is_found_in_its_own_tables() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = network._ports(Path("/"), port)
        assert found.level == Level.WARN
        assert f"{port} (control): " in found.value


def test_wall_time() -> None:
    assert network.synchronised((0x40, 16_000_000)).level == Level.WARN
    found = network.synchronised((0x2001, 4500))
    assert (found.level, found.value) == (Level.OK, "synchronised, wrong by 4.5 ms at most")
    bits, error_us = network._status()
    assert 0 <= bits < 1 << 16
    assert error_us >= 0


def test_a_robot_that_answers_and_one_that_refuses_both_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert f"127.0.0.1:{port} answers in" in network.reachable(f"127.0.0.1:{port}").value
    assert network.reachable(f"127.0.0.1:{port}").level != Level.FAIL


def test_a_robot_that_is_far_or_away() -> None:
    slow = network.reachable("10.0.0.1", lambda address, port: 0.004)
    assert slow.level == Level.WARN
    assert "4.00 ms" in slow.value

    def silent(address: str, port: int) -> float:
        assert (address, port) == ("10.0.0.1", 443)
        raise TimeoutError("timed out")

    away = network.reachable("10.0.0.1", silent)
    assert (away.level, away.value) == (Level.FAIL, "10.0.0.1: timed out")
    assert "ping -c 3 10.0.0.1" in away.fix
