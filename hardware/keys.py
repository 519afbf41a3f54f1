"""Keys: who a bridge is, and whom it lets in. `armature keys` makes, authorises and revokes them.

A folder holds pairs as `zmq.auth` writes them: `<name>.key` is public, `<name>.key_secret` never leaves its machine.
The bridge's pair is called `bridge`; public keys under `authorised/` are those of its clients. The bridge reads that
folder at every handshake, so that nothing has to be restarted.
"""

import os
import re
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

import zmq.auth

from robot import config
from robot.bridge.curve import BRIDGE, PUBLIC, SECRET, read_pair, read_public
from robot.errors import BridgeError, ConfigError, unknown_name

AUTHORISED = "authorised"
SETTLED_NS = 2_000_000_000
"""A folder that has not changed for this long is whole."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")


class BridgeKeys:
    """The pair of a bridge and the clients that it knows.

    Attributes:
        public: Public key, Z85.
        secret: Secret key, Z85.
    """

    def __init__(self, folder: str | Path) -> None:
        """Read the pair `bridge` in `folder`.

        Raises:
            BridgeError: It is missing or readable by others, or no client is authorised, so that nobody could connect.
        """
        self._folder = Path(folder).expanduser()
        self._names: dict[str, str] = {}
        self._read_ns = -1
        secret = self._folder / f"{BRIDGE}{SECRET}"
        if not secret.exists():
            raise BridgeError(
                f"{secret} does not exist: the bridge has no keys. Make them with "
                f"`armature keys make={BRIDGE} folder={self._folder}`."
            )
        self.public, self.secret = read_pair(secret)
        if not self.names():
            raise BridgeError(
                f"No client is authorised in {self._folder / AUTHORISED}, so nobody could connect. Make a client's "
                f"keys with `armature keys make=alice`, then `armature keys authorise=alice.key folder={self._folder}`."
            )

    def names(self) -> dict[str, str]:
        """Name of each authorised client by its public key, as the folder is now; files that hold no key are left.

        Files are read only after the folder has changed: strangers who knock all the time must not keep us reading.
        """
        try:
            changed_ns = (self._folder / AUTHORISED).stat().st_mtime_ns
        except OSError:
            changed_ns = 0
        if changed_ns != self._read_ns:
            self._names = {key: name for name, key in authorised(self._folder).items()}
            # A file that is being copied just now may hold its key a moment later.
            self._read_ns = changed_ns if time.time_ns() - changed_ns > SETTLED_NS else -1
        return self._names

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a client with this public key (Z85) may connect; asked by the authenticator at every handshake."""
        return key.decode("ascii", "replace") in self.names()


@dataclass(kw_only=True)
class KeysConfig:
    """Keys of `configs/keys.yaml`; without `make`, `authorise` or `revoke` the folder is listed.

    Attributes:
        folder: Where keys are kept.
        make: Name of a new pair: `bridge`, or a client's.
        authorise: File with a client's public key.
        revoke: Name of an authorised client.
    """

    folder: str
    make: str
    authorise: str
    revoke: str

    def __post_init__(self) -> None:
        asked = [key for key in ("make", "authorise", "revoke") if getattr(self, key)]
        if len(asked) > 1:
            raise ConfigError(f"One thing at a time: got {' and '.join(f'{key}=' for key in asked)}.")


def main(overrides: list[str]) -> int:
    """Make, authorise, revoke or list keys."""
    settings = config.load("keys", KeysConfig, overrides)
    folder = Path(settings.folder).expanduser()
    if settings.make:
        public = make(folder, settings.make)
        print(f"{public} is public; {public.with_suffix(SECRET)} is secret and stays on this machine.")
        print(_what_next(folder, settings.make))
    elif settings.authorise:
        name = authorise(folder, Path(settings.authorise).expanduser())
        print(f"{name!r} may connect to the bridge of {folder} from now on.")
    elif settings.revoke:
        revoke(folder, settings.revoke)
        print(f"{settings.revoke!r} may no longer connect; a lease it holds ends within a second.")
    else:
        print(_listing(folder))
    return 0


def make(folder: Path, name: str) -> Path:
    """Make a pair; returns the public file. The secret one can be read by its owner only, from the first byte on.

    Raises:
        BridgeError: The name is no file name, or a pair of that name is there.
    """
    _check_name(name)
    public, secret = folder / f"{name}{PUBLIC}", folder / f"{name}{SECRET}"
    for path in (public, secret):
        if path.exists():
            raise BridgeError(f"{path} is there already and is not overwritten. Choose another name, or move it away.")
    before = os.umask(0o077)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        zmq.auth.create_certificates(folder, name)
    except OSError as error:
        raise BridgeError(f"Cannot make keys in {folder}: {error}. Choose another folder=...") from error
    finally:
        os.umask(before)
    return public


def authorise(folder: Path, public: Path) -> str:
    """Let a client in by its public file; returns its name, which is the file's.

    Raises:
        BridgeError: The file is missing, holds no key or a secret one, or the name or key is authorised already.
    """
    if public.suffix == SECRET:
        raise BridgeError(f"{public} is a secret file and belongs on the client's machine. Give {public.stem}{PUBLIC}.")
    key = read_public(public)
    name = public.name.removesuffix(PUBLIC)
    _check_name(name)
    for other, known in authorised(folder).items():
        if known == key:
            raise BridgeError(f"This key is authorised already, as {other!r}.")
        if other == name:
            raise BridgeError(
                f"{name!r} is authorised with another key. Take that one back first: `armature keys revoke={name}`."
            )
    target = folder / AUTHORISED / f"{name}{PUBLIC}"
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    shutil.copyfile(public, target)
    return name


def revoke(folder: Path, name: str) -> None:
    """Let a client in no longer.

    Raises:
        UnknownNameError: No client of that name is authorised.
    """
    known = authorised(folder)
    if name not in known:
        raise unknown_name("client", name, known, f"Authorised are those in {folder / AUTHORISED}.")
    (folder / AUTHORISED / f"{name}{PUBLIC}").unlink()


def authorised(folder: Path) -> dict[str, str]:
    """Public key (Z85) of each authorised client by name."""
    found = {}
    for path in sorted((folder / AUTHORISED).glob(f"*{PUBLIC}")):
        try:
            found[path.name.removesuffix(PUBLIC)] = read_public(path)
        except BridgeError:
            # Half-copied, or no key at all: it lets nobody in.
            continue
    return found


def _check_name(name: str) -> None:
    if not _NAME.fullmatch(name):
        raise BridgeError(f"{name!r} is no name for keys: letters, digits, - and _, at most 64, and no path.")


def _what_next(folder: Path, name: str) -> str:
    if name == BRIDGE:
        return (
            f"Copy {BRIDGE}{PUBLIC} into the folder of each client's keys, authorise the clients "
            f"(`armature keys authorise=alice.key`), then start `armature bridge keys={folder}`."
        )
    return (
        f"On the bridge's machine: `armature keys authorise={name}{PUBLIC}`. Here: put the bridge's {BRIDGE}{PUBLIC} "
        f"beside it and connect with keys={folder / name}{SECRET}."
    )


def _listing(folder: Path) -> str:
    own = sorted(path.name.removesuffix(SECRET) for path in folder.glob(f"*{SECRET}"))
    lines = [f"{folder}", f"  own pairs: {', '.join(own) or 'none'}", "  authorised clients:"]
    known = authorised(folder)
    lines += [f"    {name}  {key}" for name, key in known.items()] or ["    none"]
    return "\n".join(lines)
