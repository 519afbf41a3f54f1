"""Frames that nobody should act upon: random bytes, damaged frames, and whole ones that mean nothing good."""

import random
import struct
import zlib
from collections.abc import Callable, Iterator

import numpy as np

from robot.bridge.wire import HEADER, MAGIC, Frame, FrameType, chunk_payload, encode, pack

SECOND = 1_000_000_000


class Hostile:
    """Frames against one bridge. All of them are refused, each for one reason."""

    def __init__(self, seed: int, boot_id: int, holder: int, now_ns: Callable[[], int]) -> None:
        """Know as much as somebody who listens: the boot id and the session that holds the lease."""
        self._random, self._boot_id, self._holder, self._now_ns = random.Random(seed), boot_id, holder, now_ns
        rows = np.random.default_rng(seed).uniform(-1, 1, (8, 7))
        self._rows = chunk_payload(rows, 0.05)
        self._kinds = (self.noise, self.damaged, self.forged, self.foreign, self.senseless)

    def frames(self, count: int) -> Iterator[bytes]:
        """Some of every kind."""
        for _ in range(count):
            yield self._random.choice(self._kinds)()

    def noise(self) -> bytes:
        """Random bytes, sometimes behind the right magic."""
        data = self._random.randbytes(self._random.choice((0, 1, 8, 63, 64, 65, 200, 900)))
        return struct.pack("<I", MAGIC) + data[4:] if len(data) > 4 and self._random.random() < 0.3 else data

    def damaged(self) -> bytes:
        """What the holder might send, with some bits turned, cut short, or with something behind it."""
        data = bytearray(encode(self._command(t_send_ns=self._now_ns())))
        way = self._random.randrange(3)
        if way == 0:
            for _ in range(self._random.randint(1, 4)):
                at = self._random.randrange(len(data))
                data[at] ^= self._random.randint(1, 255)
            # Turned twice to and fro it would be whole again.
            data[0] ^= (
                0x80 if zlib.crc32(data[:60] + bytes(4) + data[64:]) == struct.unpack_from("<I", data, 60)[0] else 0
            )
        elif way == 1:
            del data[self._random.randrange(len(data)) :]
        else:
            data += self._random.randbytes(self._random.randint(1, 100))
        return bytes(data)

    def forged(self) -> bytes:
        """A header whose fields are random and whose checksum is right."""
        some = self._random.getrandbits
        payload = self._random.randbytes(self._random.choice((0, 8, 24, 480)))
        major = self._random.choice((1, 1, 1, some(16)))
        flags = self._random.choice((0, 0, some(16)))
        length = self._random.choice((len(payload), len(payload), some(32)))
        fields = (some(64), some(64), some(64), some(63) - 2**62, some(63) - 2**62, length, 0, 0)
        header = HEADER.pack(MAGIC, major, some(16), self._random.choice((1, 5, 7, some(16))), flags, *fields)
        crc = zlib.crc32(payload, zlib.crc32(header))
        return header[:-4] + struct.pack("<I", crc) + payload

    def foreign(self) -> bytes:
        """A good command of another session, another start of the bridge, or another time."""
        way = self._random.randrange(4)
        if way == 0:
            return encode(self._command(session=self._random.getrandbits(62), t_send_ns=self._now_ns()))
        if way == 1:
            return encode(self._command(boot_id=self._random.getrandbits(64), t_send_ns=self._now_ns()))
        if way == 2:
            return encode(self._command(t_send_ns=self._random.randint(-SECOND, SECOND)))
        return encode(self._command(t_send_ns=self._now_ns() + self._random.randint(SECOND, 2**60)))

    def senseless(self) -> bytes:
        """A command of the holder whose rows are none."""
        head = [0.05, 8.0, 7.0]
        head[self._random.randrange(3)] = self._random.choice((float("nan"), float("inf"), -1.0, 1e300, 0.5, 0.0))
        head = head if head != [0.5, 8.0, 7.0] else [7.0, 8.0, 7.0]
        payload = struct.pack("<3d", *head) + self._rows[24:]
        if self._random.random() < 0.3:
            rows = np.frombuffer(self._rows[24:]).reshape(8, 7).copy()
            rows[self._random.randrange(8), self._random.randrange(7)] = self._random.choice((np.nan, np.inf, -np.inf))
            payload = chunk_payload(rows, 0.05)
        return encode(self._command(payload=payload, t_send_ns=self._now_ns()))

    def requests(self, count: int, session: int) -> Iterator[bytes]:
        """Requests that can be read and ask for nothing that there is."""
        for number in range(1, count + 1):
            message = {"op": self._thing(), "seed": self._thing(), "ttl_s": self._thing(), "priority": self._thing()}
            yield encode(Frame(FrameType.REQUEST, pack(message), self._boot_id, session, number, self._now_ns()))

    def _thing(self) -> object:
        some = self._random
        return some.choice(
            (
                None,
                True,
                -1,
                2**63,
                1.5,
                float("nan"),
                float("inf"),
                "x" * some.randint(0, 50),
                "lease",
                b"\xff",
                [],
                [[]],
                {},
            )
        )

    def _command(self, **changed: object) -> Frame:
        fields: dict[str, object] = {"payload": self._rows, "boot_id": self._boot_id, "session": self._holder}
        fields |= {"sequence": self._random.getrandbits(40), "t_exec_ns": self._now_ns()}
        return Frame(FrameType.CHUNK, **fields | changed)  # type: ignore[arg-type]
