"""One file per secret: 0600 files, Docker secrets, mounted Kubernetes secrets."""

import stat
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from fleetkit.errors import Conflict, Invalid, NotFound, OverBudget, Refused, Unavailable
from fleetkit.trust import private_dir
from secrets_mcp.backends.port import Item, NewSecret, Status, replace_file

HISTORY = ".history"
KEEP = 10  # old values of one secret
MAX_BYTES = 64 * 1024
_NOT_SECRETS = (".md", ".example")
_SETTING = "fleet_"  # a file named like a FLEET_* variable is a setting of the fleet, not a secret to use


class Files:
    """Looks through `roots` in order; the first one, private to this user, is written to.

    A link may point anywhere within its root (Kubernetes mounts are made of links), never out of it.
    `withheld` are files that happen to lie there and open another store.
    """

    name = "files"
    default_field = "value"
    writable = True

    def __init__(self, roots: Sequence[Path], withheld: Sequence[Path] = ()) -> None:
        self._roots = roots
        self._withheld = {path.resolve() for path in withheld}
        self._lock = threading.Lock()

    def status(self) -> Status:
        present = [str(root) for root in self._roots if root.is_dir()]
        return Status("ready", f"reads {', '.join(present) or 'nothing yet'}; writes {self._roots[0]}")

    def items(self) -> list[Item]:
        found: dict[str, Item] = {}
        for root in self._roots:
            for path in (path for path in _walk(root) if path.resolve() not in self._withheld):
                name = path.relative_to(root).as_posix()
                found.setdefault(name, self._describe(name, path))
        return [found[name] for name in sorted(found)]

    def item(self, path: str) -> Item:
        return self._describe(path, self._find(path))

    def value(self, path: str, field: str) -> str:
        _only_value(field)
        file = self._find(path)
        try:
            if file.stat().st_size > MAX_BYTES:
                raise OverBudget(f"{file} is larger than {MAX_BYTES} bytes: that is not a credential")
            return _text(file.read_bytes(), file)
        except OSError as error:
            raise Unavailable(f"cannot read {file} ({error.strerror}): give this user the right to read it") from error

    def create(self, new: NewSecret, value: str) -> Item:
        if new.username or new.tags or new.expires_at:
            raise Invalid("files keep a value only: use the backend keepass for a user name, tags or an expiry")
        with self._lock:
            target = self._roots[0] / new.path
            if any((root / new.path).exists() for root in self._roots):
                raise Conflict(f"files/{new.path} exists: use rotateSecret for a new value")
            self._write(target, value)
        return self.item(new.path)

    def replace(self, path: str, field: str, value: str) -> Item:
        _only_value(field)
        with self._lock:
            file = self._own(path)
            self._keep(path, file)
            self._write(file, value)
        return self.item(path)

    def restore(self, path: str, field: str) -> Item:
        _only_value(field)
        with self._lock:
            file = self._own(path)
            kept = self._history(path)
            if not kept:
                raise Conflict(f"files/{path} has no earlier value: nothing to go back to")
            before = _text(kept[-1].read_bytes(), kept[-1])
            self._keep(path, file)
            self._write(file, before)
        return self.item(path)

    def _describe(self, name: str, file: Path) -> Item:
        note = "" if _is_private(file, self._roots[0]) else f"others can read it: chmod 600 {file}"
        modified = datetime.fromtimestamp(file.stat().st_mtime, UTC)
        numbers = [int(kept.name) for kept in self._history(name)]
        version = max(numbers, default=0) + 1
        return Item(name, (self.default_field,), modified_at=modified, version=version, note=note)

    def _find(self, path: str) -> Path:
        for root in self._roots:
            file = root / path
            if not _is_hidden(Path(path)) and file.is_file() and file.resolve() not in self._withheld:
                if not file.resolve().is_relative_to(root.resolve()):
                    raise Refused(f"files/{path} leads out of {root}: put the file itself there")
                if not _is_private(file, self._roots[0]):
                    raise Refused(f"others can read {file}: chmod 600 it, then change the secret")
                return file
        raise NotFound(f"no secret files/{path}: searchSecrets finds its name")

    def _own(self, path: str) -> Path:
        file = self._find(path)
        if file.is_symlink() or not file.is_relative_to(self._roots[0]):
            raise Refused(f"{file} belongs to whoever mounted it: only {self._roots[0]} is written")
        return file

    def _history(self, name: str) -> list[Path]:
        folder = self._roots[0] / HISTORY / name
        kept = (path for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else ()
        return sorted(kept, key=lambda path: int(path.name))

    def _keep(self, name: str, file: Path) -> None:
        """Keep the present value before it is replaced: a crash between the two loses nothing."""
        kept = self._history(name)
        number = int(kept[-1].name) + 1 if kept else 1
        folder = _private_dirs(self._roots[0], self._roots[0] / HISTORY / name)
        replace_file(folder / str(number), file.read_bytes())
        for old in kept[: max(0, len(kept) + 1 - KEEP)]:
            old.unlink(missing_ok=True)

    def _write(self, file: Path, value: str) -> None:
        _private_dirs(self._roots[0], file.parent)
        replace_file(file, value.encode())


def _walk(root: Path) -> Iterator[Path]:
    if not root.is_dir():
        return
    for path in sorted(root.rglob("*")):
        if path.suffix not in _NOT_SECRETS and not _is_hidden(path.relative_to(root)) and path.is_file():
            yield path


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts) or path.name.lower().startswith(_SETTING)


def _private_dirs(root: Path, folder: Path) -> Path:
    try:
        for path in reversed([folder, *(p for p in folder.parents if p.is_relative_to(root))]):
            private_dir(path)
    except OSError as error:
        raise Unavailable(f"cannot make {folder} ({error.strerror}): another secret may have that name") from error
    return folder


def _is_private(file: Path, own: Path) -> bool:
    """Whether only this user reads it. A mounted secret is as open as its mount: not ours to judge."""
    mode = file.stat().st_mode
    return not (mode & (stat.S_IRWXG | stat.S_IRWXO)) or not file.is_relative_to(own)


def _only_value(field: str) -> None:
    if field != Files.default_field:
        raise NotFound("a file has only the field value")


def _text(raw: bytes, file: Path) -> str:
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        raise Invalid(f"{file} is not text: encode it (base64) for use as a secret") from None
    return text.removesuffix("\n").removesuffix("\r")
