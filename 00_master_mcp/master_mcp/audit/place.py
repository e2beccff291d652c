"""Where the audit's key, anchor and segments lie."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from fleetkit import trust
from fleetkit.errors import Unavailable
from fleetkit.settings import FleetSettings
from master_mcp.audit.chain import ChainKeys

KEY_BYTES = 32
PURPOSE = "audit-chain"


@dataclass(frozen=True)
class Place:
    """The files of the audit. `key_file` is None when the key derives from the fleet's root key."""

    data_dir: Path
    key_file: Path | None
    anchor: Path
    segments: Path

    @property
    def key_inside(self) -> bool:
        """Whether who can read the data directory can read the key."""
        return self.key_file is None or _inside(self.key_file, self.data_dir)

    @property
    def anchor_inside(self) -> bool:
        """Whether who can write the data directory can write the anchor."""
        return _inside(self.anchor, self.data_dir)


def place_of(config: FleetSettings) -> Place:
    """The audit's files as configured; a relative path starts at the data directory."""
    audit, data_dir = config.hub.audit, config.data_dir
    key = audit.key_file and data_dir / audit.key_file.expanduser()
    anchor, segments = audit.anchor_file.expanduser(), audit.segment_dir.expanduser()
    return Place(data_dir, key, data_dir / anchor, data_dir / segments)


def chain_keys(place: Place, *, create: bool) -> ChainKeys:
    """The keys of the chain; with `create`, a key file that is not there is made.

    Raises Unavailable, saying what to do, when there is no key, it is damaged or it cannot be read.
    """
    if place.key_file is None:
        root = place.data_dir / "keys" / "root.key"
        if not create and not root.exists():
            raise Unavailable(f"{root} is gone: restore it from a backup; without it the audit cannot be checked")
        return ChainKeys(trust.KeyRing(place.data_dir).derive(PURPOSE))
    try:
        if create and not place.key_file.exists():
            _make(place.key_file)
        secret = bytes.fromhex(place.key_file.read_text(encoding="utf-8"))
    except OSError as error:
        raise Unavailable(f"hub.audit.key_file {place.key_file}: {error.strerror}") from error
    except ValueError:
        secret = b""
    if len(secret) != KEY_BYTES:
        raise Unavailable(f"hub.audit.key_file {place.key_file} is damaged: it must hold {KEY_BYTES * 2} hex digits")
    return ChainKeys(secret)


def _make(path: Path) -> None:
    """A new key, whole or not at all; a file that appears meanwhile stays. Its directory has to exist."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
            file.write(secrets.token_hex(KEY_BYTES))
            file.flush()
            os.fsync(file.fileno())
        os.link(partial, path)
    except FileExistsError:
        pass
    finally:
        partial.unlink(missing_ok=True)


def _inside(path: Path, folder: Path) -> bool:
    return path.resolve().is_relative_to(folder.resolve())
