"""An address that is none is said at once; nothing waits for it."""

import time

import pytest

from robot.bridge.client import BridgeClient
from robot.errors import BridgeError


@pytest.mark.timeout(10)
@pytest.mark.parametrize("address", ["", "127.0.0.1:5555", "tcp://", "tcp://127.0.0.1", "udp://127.0.0.1:5555"])
def test_what_is_no_address_is_said_at_once(address: str) -> None:
    begin = time.monotonic()
    with pytest.raises(BridgeError, match="is no address of a bridge"), BridgeClient(address):
        pass
    assert time.monotonic() - begin < 1.0
