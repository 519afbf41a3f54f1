"""Key files: pairs of Curve25519 keys, as `zmq.auth` writes them, and what a client needs of them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq

from robot.errors import BridgeError

BRIDGE = "bridge"
"""Name of the bridge's pair."""
PUBLIC, SECRET = ".key", ".key_secret"
_KEY_LENGTH = 40


@dataclass(frozen=True)
class ClientKeys:
    """What a client proves itself with, and how it knows the bridge; all Z85."""

    public: str
    secret: str
    bridge: str

    @classmethod
    def load(cls, path: str | Path) -> "ClientKeys":
        """Read a client's secret file, and `bridge.key` beside it.

        Raises:
            BridgeError: A file is missing, holds no key, or others may read the secret one.
        """
        secret_path = Path(path).expanduser()
        bridge = secret_path.parent / f"{BRIDGE}{PUBLIC}"
        public, secret = read_pair(secret_path)
        if not bridge.exists():
            raise BridgeError(
                f"{bridge} does not exist: copy the bridge's public key there, so that no other bridge can pass for it."
            )
        return cls(public, secret, read_public(bridge))

    def apply(self, socket: zmq.Socket[Any]) -> None:
        """Encrypt what this socket sends, to this bridge only."""
        socket.setsockopt_string(zmq.CURVE_PUBLICKEY, self.public)
        socket.setsockopt_string(zmq.CURVE_SECRETKEY, self.secret)
        socket.setsockopt_string(zmq.CURVE_SERVERKEY, self.bridge)


def read_pair(path: Path) -> tuple[str, str]:
    """Public and secret key (Z85) of a secret file.

    Raises:
        BridgeError: It is missing, holds no secret key, or others may read it.
    """
    public, secret = _read(path)
    if not secret:
        raise BridgeError(f"{path} holds no secret key. Give the file that ends in {SECRET}.")
    mode = path.stat().st_mode & 0o777
    if mode & 0o077:
        raise BridgeError(f"{path} may be read by others (mode {mode:04o}). Close it: `chmod 600 {path}`.")
    return public, secret


def read_public(path: Path) -> str:
    """Public key (Z85) of a public file.

    Raises:
        BridgeError: It is missing, holds no key, or a secret one.
    """
    public, secret = _read(path)
    if secret:
        raise BridgeError(f"{path} holds a secret key, which belongs on its owner's machine. Give the public file.")
    return public


def _read(path: Path) -> tuple[str, str]:
    from zmq.auth import load_certificate

    try:
        keys = load_certificate(path)
    except (OSError, ValueError) as error:
        raise BridgeError(f"Cannot read keys from {path}: {error}. Make them with `armature keys make=...`.") from error
    public, secret = ((key or b"").decode("ascii", "replace") for key in keys)
    if not all(len(key) in lengths for key, lengths in ((public, (_KEY_LENGTH,)), (secret, (0, _KEY_LENGTH)))):
        raise BridgeError(f"{path} holds no Curve25519 keys in Z85. Make them with `armature keys make=...`.")
    return public, secret
