"""Keys on the terminal while something is recorded. They are read from it like a line, so that they work over SSH."""

import codecs
import contextlib
import os
import re
import select
import signal
import termios
import tty
from dataclasses import dataclass
from enum import StrEnum
from types import FrameType, TracebackType
from typing import Any, Self

HELP = "space begins and ends, s success, f failure, i intervention, n note, d discard, q quit"
_SEQUENCE = re.compile(r"\x1b(\[[0-9;?]*[ -/]*[@-~]|O.)")
"""What arrows and function keys send (ECMA-48, 5.4)."""
_ENTER, _ERASE, _ESCAPE = "\r\n", "\x7f\x08", "\x1b"
LONGEST_NOTE = 200


class Key(StrEnum):
    """What a key asks for."""

    TOGGLE = " "
    SUCCESS = "s"
    FAILURE = "f"
    INTERVENTION = "i"
    NOTE = "n"
    DISCARD = "d"
    QUIT = "q"


@dataclass(frozen=True)
class Wish:
    """What the user wants; the text of a note."""

    key: Key
    text: str = ""


class KeyReader:
    """Makes wishes of characters: a note is typed to its end, and a discard is confirmed."""

    def __init__(self) -> None:
        self._note: str | None = None
        self._is_confirming = False

    @property
    def prompt(self) -> str:
        """What the user is being asked; empty for nothing."""
        if self._is_confirming:
            return "discard this episode? y/n"
        return "" if self._note is None else f"note (Enter ends, Esc forgets it): {self._note}_"

    def take(self, typed: str) -> list[Wish]:
        """Wishes that these characters complete."""
        wishes = [self._character(letter) for letter in _SEQUENCE.sub("", typed)]
        return [wish for wish in wishes if wish is not None]

    def _character(self, letter: str) -> Wish | None:
        if self._note is not None:
            return self._note_letter(letter)
        if self._is_confirming:
            self._is_confirming = False
            return Wish(Key.DISCARD) if letter.lower() == "y" else None
        try:
            key = Key(letter.lower())
        except ValueError:
            return None
        if key == Key.NOTE:
            self._note = ""
        elif key == Key.DISCARD:
            self._is_confirming = True
        else:
            return Wish(key)
        return None

    def _note_letter(self, letter: str) -> Wish | None:
        assert self._note is not None
        if letter in _ENTER:
            text, self._note = self._note.strip(), None
            return Wish(Key.NOTE, text) if text else None
        if letter == _ESCAPE:
            self._note = None
        elif letter in _ERASE:
            self._note = self._note[:-1]
        elif letter.isprintable() and len(self._note) < LONGEST_NOTE:
            self._note += letter
        return None


class Keyboard:
    """The terminal as a source of keys, as a context manager. Where nobody types, nothing is ever pressed.

    Attributes:
        is_there: Whether somebody can type.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        """Nothing changes before entry.

        Args:
            descriptor: Of a terminal; None for standard input.
        """
        self._fd = 0 if descriptor is None else descriptor
        self._before: list[Any] | None = None
        self._handler: Any = None
        self._decoder = codecs.getincrementaldecoder("utf-8")("ignore")

    @property
    def is_there(self) -> bool:
        """Whether somebody can type."""
        return self._before is not None

    def __enter__(self) -> Self:
        # A background job that read from its terminal would be stopped by it.
        if os.isatty(self._fd) and os.tcgetpgrp(self._fd) == os.getpgrp():
            self._before = termios.tcgetattr(self._fd)
            self._handler = signal.signal(signal.SIGCONT, self._listen)
            self._listen()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._before is not None:
            signal.signal(signal.SIGCONT, self._handler)
            with contextlib.suppress(termios.error):  # it may have gone away
                termios.tcsetattr(self._fd, termios.TCSADRAIN, self._before)
            self._before = None

    def typed(self, seconds: float) -> str:
        """Characters that were typed; waits for the first at most so long."""
        if not select.select([self._fd] if self.is_there else [], [], [], seconds)[0]:
            return ""
        try:
            data = os.read(self._fd, 1024)
        except OSError:
            data = b""
        if not data:  # the terminal has gone, as when an SSH connection breaks
            self._before = None
        return self._decoder.decode(data)

    def _listen(self, number: int = 0, frame: FrameType | None = None) -> None:
        """Every key at once and unseen; also when a shell has let us go on, which has changed that."""
        with contextlib.suppress(termios.error):  # a terminal that goes away also lets its jobs go on
            tty.setcbreak(self._fd, termios.TCSADRAIN)
