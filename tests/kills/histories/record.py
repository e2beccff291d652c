"""Record histories: `python tests/kills/histories/record.py` writes those that this version of the interpreter leaves.

Each is the data directory of a hub that was killed while a run stood at a certain place, packed, with how that run has
to end. Every later version has to bring it there (test_histories.py). Record what is added: `record.py NAME...`;
histories of released versions stay as they are.
"""

import io
import json
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parents[1]))

from kills import demo  # noqa: E402 - found by the line above when this runs by itself
from kills.nursery import Nursery  # noqa: E402 - as above

STOPS = {  # name: workflow, boundary
    "asks": ("demo", "ledger after ask waiting #1"),
    "waits": ("demo", "ledger after nap waiting #1"),
    "listens": ("demo", "ledger after hear waiting #1"),
    "calls_a_part": ("demo", "journal begun part.inner #1"),
    "goes_through_items": ("demo", "journal recorded each[1] #1"),
    "undoes": ("undone", "journal recorded gone.undo #1"),
}
KEPT = ("admin.key", "client.key", "audit", "keys", "fleet.yaml", "policies", "book")
DATABASES = ("hub.db", "hub.db-wal", "workflows.db", "workflows.db-wal")


def expected(workflow: str) -> dict[str, Any]:
    """How a run of that workflow ends."""
    if workflow == "demo":
        return {"name": "demo", "status": "completed", "outputs": demo.OUTPUTS, "lines": sorted(demo.LINES)}
    return {"name": "undone", "status": "failed", "outputs": None, "lines": sorted(demo.UNDONE_LINES)}


def pack(data: Path, name: str, end: dict[str, Any]) -> None:
    """Write one history."""
    with tarfile.open(HERE / f"{name}.tar.xz", "w:xz") as packed:
        for one in (*KEPT, *DATABASES):
            packed.add(data / one, one, filter=_nobodys)
        said = json.dumps(end).encode()
        about = tarfile.TarInfo("expected.json")
        about.size = len(said)
        packed.addfile(about, io.BytesIO(said))


def _nobodys(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    entry.uname = entry.gname = ""
    entry.uid = entry.gid = entry.mtime = 0
    return entry


def main(names: list[str]) -> None:
    """Record these, or all."""
    with tempfile.TemporaryDirectory() as base:
        nursery = Nursery(Path(base))
        for name in names or STOPS:
            data = nursery.fresh()
            workflow, stop = STOPS[name]
            ended = nursery.ask("live", data, workflow=workflow, kill_at=[stop])
            assert ended["passed"][-1] == stop, ended
            pack(data, name, expected(workflow))
        nursery.close()


if __name__ == "__main__":
    main(sys.argv[1:])
