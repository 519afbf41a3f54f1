"""Keys as wishes, and a terminal that is as it was afterwards."""

import os
import pty
import signal
import termios
import time
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from robot.episodes.control_keys import LONGEST_NOTE, Key, Keyboard, KeyReader, Wish


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (" ", [Wish(Key.TOGGLE)]),
        ("sFiq", [Wish(Key.SUCCESS), Wish(Key.FAILURE), Wish(Key.INTERVENTION), Wish(Key.QUIT)]),
        ("x\x00~é", []),
        ("\x1b[A\x1b[3~\x1bOP\x1b[1;5D", []),  # arrows and such hold letters
        ("nthe cube slipped\r", [Wish(Key.NOTE, "the cube slipped")]),
        ("nab\x7fc\x08d\n", [Wish(Key.NOTE, "ad")]),
        ("n  \n", []),
        ("nq\x1bs", [Wish(Key.SUCCESS)]),
        ("dy", [Wish(Key.DISCARD)]),
        ("dY", [Wish(Key.DISCARD)]),
        ("dns", [Wish(Key.SUCCESS)]),
        ("dd", []),
        ("nü\n", [Wish(Key.NOTE, "ü")]),
    ],
)
def test_what_is_typed_is_what_is_wished(typed: str, expected: list[Wish]) -> None:
    assert KeyReader().take(typed) == expected
    if "\x1b[" not in typed:
        reader = KeyReader()
        assert [wish for letter in typed for wish in reader.take(letter)] == expected


def test_the_prompt_says_what_is_asked() -> None:
    reader = KeyReader()
    assert reader.prompt == ""
    reader.take("nab")
    assert reader.prompt.endswith(": ab_")
    reader.take("\nd")
    assert reader.prompt == "discard this episode? y/n"
    reader.take("n")
    assert reader.prompt == ""


def test_a_note_has_an_end() -> None:
    (wish,) = KeyReader().take("n" + "x" * 10_000 + "\n")
    assert len(wish.text) == LONGEST_NOTE


@given(st.text())
def test_nothing_typed_is_an_error(typed: str) -> None:
    for wish in KeyReader().take(typed):
        assert wish.key in Key


@pytest.fixture
def terminal() -> Iterator[tuple[int, int]]:
    """Both ends of a terminal; ours counts as that of this process."""
    ours, theirs = pty.openpty()
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


def echo(fd: int) -> bool:
    return bool(termios.tcgetattr(fd)[3] & termios.ECHO)


def foreground(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp())


def test_keys_come_at_once_and_unseen(terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    foreground(monkeypatch)
    ours, theirs = terminal
    before = termios.tcgetattr(theirs)
    with Keyboard(theirs) as keyboard:
        assert keyboard.is_there
        assert keyboard.typed(0.0) == ""
        os.write(ours, b"s")
        assert keyboard.typed(1.0) == "s"
        os.write(ours, "ü".encode()[:1])
        assert keyboard.typed(1.0) == ""
        os.write(ours, "ü".encode()[1:])
        assert keyboard.typed(1.0) == "ü"
        assert not echo(theirs)
        # A shell that lets a stopped job go on gives it another terminal.
        termios.tcsetattr(theirs, termios.TCSADRAIN, before)
        os.kill(os.getpid(), signal.SIGCONT)
        assert not echo(theirs)
    assert echo(theirs)
    assert signal.getsignal(signal.SIGCONT) == signal.SIG_DFL


def test_no_keys_without_a_terminal_or_in_the_background(
    terminal: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    read, write = os.pipe()
    with Keyboard(read) as keyboard:
        assert not keyboard.is_there
        os.write(write, b"q")
        begin = time.monotonic()
        assert keyboard.typed(0.05) == ""
        assert time.monotonic() - begin >= 0.05
    os.close(read)
    os.close(write)
    monkeypatch.setattr(os, "tcgetpgrp", lambda fd: os.getpgrp() + 1)
    with Keyboard(terminal[1]) as keyboard:
        assert not keyboard.is_there
        assert echo(terminal[1])


def test_a_terminal_that_goes_away_types_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    foreground(monkeypatch)
    ours, theirs = pty.openpty()
    with Keyboard(theirs) as keyboard:
        os.close(ours)
        assert keyboard.typed(1.0) == ""
        assert not keyboard.is_there
        assert keyboard.typed(0.01) == ""
    os.close(theirs)
