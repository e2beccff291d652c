"""Reading and changing what is inside an open KeePass database.

Works on the file's XML, not by pykeepass's search, which pastes its arguments into XPath expressions.
"""

import io
import struct
import time
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from fleetkit.errors import Conflict, Invalid, NotFound, Refused, Unavailable
from secrets_mcp.backends import totp
from secrets_mcp.backends.port import Item, NewSecret

KEEP = 10  # old values of one entry, as KeePass itself keeps
STANDARD = {"password": "Password", "username": "UserName", "url": "URL", "notes": "Notes"}
ATTACHMENT = "attachment:"
_ODD = {ord(character): f"%{ord(character):02X}" for character in "%/#"} | {n: f"%{n:02X}" for n in (*range(32), 127)}


def open_with_password(raw: bytes, password: str | None, key: bytes | None) -> Any | None:
    """The database, None when the password or key file is wrong; raises Unavailable for a damaged file."""
    return _open(raw, password=password, keyfile=io.BytesIO(key) if key else None)


def open_with_key(raw: bytes, key: bytes) -> Any | None:
    """The database by its transformed key, None when that key no longer fits. Takes milliseconds."""
    return _open(raw, transformed_key=key)


def _open(raw: bytes, **credentials: Any) -> Any | None:
    from construct import ConstructError
    from pykeepass import PyKeePass
    from pykeepass.exceptions import CredentialsError, HeaderChecksumError, PayloadChecksumError

    broken = (HeaderChecksumError, PayloadChecksumError, ConstructError, SyntaxError, ValueError, KeyError)
    try:
        kp: Any = PyKeePass(io.BytesIO(raw), **credentials)
        if kp.kdbx.body is None:  # a version that pykeepass skips without a word
            raise ValueError("version")
        return kp
    except CredentialsError:
        return None
    except (*broken, struct.error, zlib.error, AttributeError) as error:
        # `from None`: a parser's error can quote what it was reading.
        raise Unavailable(
            f"the KeePass database is damaged or of an unknown kind ({type(error).__name__}): restore a copy"
        ) from None


def items(kp: Any) -> list[Item]:
    """Every titled entry outside the recycle bin."""
    return [describe(kp, path, element) for path, element in _walk(kp)]


def find(kp: Any, path: str) -> Any:
    """The entry's element; raises NotFound, or Conflict when two entries share the path."""
    found = [element for known, element in _walk(kp) if known == path]
    if not found:
        raise NotFound(f"no secret keepass/{path}: searchSecrets finds its name")
    if len(found) > 1:
        raise Conflict(f"{len(found)} entries are called {path} in KeePass: give each its own title")
    return found[0]


def describe(kp: Any, path: str, element: Any) -> Item:
    """Names and times of one entry."""
    entry = _entry(kp, element)
    files = tuple(sorted(_attachments(element)))
    return Item(
        path=path,
        fields=(*_field_names(element), *(ATTACHMENT + name for name in files)),
        tags=tuple(tag.strip() for tag in entry.tags if tag.strip()),
        created_at=entry.ctime,
        modified_at=entry.mtime,
        expires_at=entry.expiry_time if entry.expires else None,
        version=len(entry.history) + 1,
        attachments=files,
    )


def value(kp: Any, element: Any, field: str) -> str:
    """One field of an entry; `totp` is the code of now, `attachment:NAME` a text file attached to it."""
    if field == totp.FIELD:
        return totp.code(_strings(element), time.time())
    if field.startswith(ATTACHMENT):
        return _attached_text(kp, element, field.removeprefix(ATTACHMENT))
    if totp.is_seed(field):
        raise Refused("the seed of a one-time password is never handed out: use the field totp")
    found = _strings(element).get(STANDARD.get(field, field))
    if not found:
        raise NotFound(f"this entry has no field {field}: describeSecret lists the ones it has")
    if found.startswith("{REF:"):
        raise Invalid("this field refers to another entry: name that entry in the reference instead")
    return found


def create(kp: Any, new: NewSecret, password: str) -> None:
    """Add an entry, with the groups above it."""
    *groups, title = new.path.split("/")
    if any(known == new.path for known, _ in _walk(kp)):
        raise Conflict(f"keepass/{new.path} exists: use rotateSecret for a new value")
    group = kp.root_group
    for name in groups:
        below = next((known for known in group.subgroups if known.name == name), None)
        group = below or kp.add_group(group, name)
    kp.add_entry(
        group,
        title,
        new.username or "",
        password,
        expiry_time=new.expires_at,
        tags=list(new.tags) or None,
        force_creation=True,
    )


def replace(kp: Any, path: str, field: str, new: str) -> None:
    """Set a field and keep the entry as it was in its history; an expiry moves on by its own length."""
    if field == totp.FIELD or field.startswith(ATTACHMENT):
        raise Invalid(f"{field} cannot be rotated: change it in KeePass")
    element = find(kp, path)
    value(kp, element, field)
    _set(kp, element, field, new)


def restore(kp: Any, path: str, field: str) -> None:
    """Swap a field with its value before the last change."""
    element = find(kp, path)
    history = element.findall("History/Entry")
    before = _strings(history[-1]).get(STANDARD.get(field, field)) if history else None
    if not before:
        raise Conflict(f"keepass/{path} has no earlier {field}: nothing to go back to")
    _set(kp, element, field, before)


def _set(kp: Any, element: Any, field: str, new: str) -> None:
    entry = _entry(kp, element)
    lifetime = entry.expiry_time - entry.mtime if entry.expires else None
    entry.save_history()
    key = STANDARD.get(field, field)
    holder = next(string for string in element.findall("String") if string.findtext("Key") == key)
    holder.find("Value").text = new
    holder.find("Value").set("Protected", "True")
    entry.touch(modify=True)
    if lifetime is not None and lifetime.total_seconds() > 0:
        entry.expiry_time = datetime.now(UTC) + lifetime
    history = element.find("History")
    for old in history.findall("Entry")[:-KEEP]:
        history.remove(old)


def _walk(kp: Any) -> Iterator[tuple[str, Any]]:
    root = kp.tree.getroot()
    yield from _below(root.find("Root/Group"), "", root.findtext("Meta/RecycleBinUUID"))


def _below(group: Any, prefix: str, recycle_bin: str | None) -> Iterator[tuple[str, Any]]:
    for element in group.findall("Entry"):
        title = _strings(element).get("Title")
        if title:
            yield prefix + _part(title), element
    for inner in group.findall("Group"):
        if inner.findtext("UUID") != recycle_bin:
            yield from _below(inner, f"{prefix}{_part(inner.findtext('Name') or '')}/", recycle_bin)


def _part(name: str) -> str:
    """One part of a path: what would be read as punctuation of a reference is percent-encoded."""
    return {"": "%", ".": "%2E", "..": "%2E%2E"}.get(name, name.translate(_ODD))


def _entry(kp: Any, element: Any) -> Any:
    from pykeepass.entry import Entry

    return Entry(element=element, kp=kp)


def _strings(element: Any) -> dict[str, str]:
    return {s.findtext("Key") or "": s.findtext("Value") or "" for s in element.findall("String")}


def _field_names(element: Any) -> Iterator[str]:
    strings = _strings(element)
    yield from (name for name, key in STANDARD.items() if strings.get(key))
    yield from (key for key in strings if key not in {"Title", *STANDARD.values()} and not totp.is_seed(key))
    if totp.has_code(strings):
        yield totp.FIELD


def _attachments(element: Any) -> dict[str, int]:
    return {binary.findtext("Key") or "": int(binary.find("Value").get("Ref")) for binary in element.findall("Binary")}


def _attached_text(kp: Any, element: Any, name: str) -> str:
    number = _attachments(element).get(name)
    if number is None:
        raise NotFound(f"this entry has no attachment {name}: describeSecret lists the ones it has")
    raw: bytes = kp.binaries[number]
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise Invalid(f"the attachment {name} is not text and cannot be used as a secret") from None
