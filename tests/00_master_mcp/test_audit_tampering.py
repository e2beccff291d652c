"""Whatever is done to a log without its key is found: ten thousand ways in memory, each kind on real files."""

import random
import shutil
import sqlite3
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
import tampers
from audits import Log, configured, opened
from commands import Fleet
from tampers import KINDS, Copy, Tamper

from master_mcp.audit.anchor import read_anchor
from master_mcp.audit.chain import ChainKeys, Head
from master_mcp.audit.check import examine
from master_mcp.audit.place import chain_keys, place_of
from master_mcp.audit.segments import table_rows
from master_mcp.audit.verify import evidence_of, verify
from master_mcp.store import open_hub_store

SETTINGS = {"segment_rows": 2000, "checkpoint_rows": 100, "keep_rows": 3000}
RUNS, TAMPERS = 10, 10_000


def look(log: Log) -> Copy:
    """The log as it stands, in memory."""
    place = place_of(log.config)

    def read(db: sa.Connection) -> Copy:
        found = evidence_of(db, place, read_anchor(place.anchor))
        files = {path.name: path.read_bytes() for path in sorted(place.segments.glob("*.gz"))}
        lines = None if found.anchor is None else tuple(found.anchor.lines)
        rows = tuple(tuple(row) for row in table_rows(db, 0))
        return Copy(found.head, found.signature, tuple(found.checkpoints), lines, rows, files)

    return log.store.read_now(read)


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[Copy, ChainKeys]]:
    """12,700 rows: four segments whose rows left the table, two whose rows did not, a rest."""
    config = configured(tmp_path_factory.mktemp("log"), **SETTINGS)
    with opened(config) as made:
        earlier = [filled(made, n) for n in range(120)]
        made.keeper.tick()
        earlier += [filled(made, n) for n in range(120, 127)]
    with opened(config) as made:
        whole = look(made)
        assert (whole.rows[0][0], whole.rows[-1][0], len(whole.files)) == (8001, 12_700, 6)
        keys = chain_keys(place_of(config), create=False)
        yield replace(whole, dropped=8000, earlier=tuple(earlier[:-1])), keys


def filled(log: Log, hundred: int) -> tuple[Head, str, tuple[str, ...]]:
    """A hundred rows more, and what a backup of the database would then hold of head and checkpoints."""
    log.fill(100, hundred * 100)
    found = log.store.read_now(lambda db: evidence_of(db, place_of(log.config), None))
    return found.head, found.signature, tuple(found.checkpoints)


def test_a_log_that_nobody_touched_passes_from_every_row_on(log: tuple[Copy, ChainKeys]) -> None:
    copy, keys = log
    reports = [examine(copy.evidence(), keys, since=since) for since in range(0, 12_701, 650)]
    assert [report.problem for report in reports] == [None] * 20
    assert (reports[0].rows, reports[0].segments, reports[-1].rows) == (12_700, 6, 400)


@pytest.mark.parametrize("run", range(RUNS))
def test_ten_thousand_tampers_are_all_found(log: tuple[Copy, ChainKeys], run: int) -> None:
    copy, keys = log
    rng = random.Random(run)
    kinds = rng.choices(list(KINDS), list(KINDS.values()), k=TAMPERS // RUNS)
    found = ((kind.__name__, tamper_and_check(kind, rng, copy, keys)) for kind in kinds)
    assert [name for name, problem in found if problem is None] == []


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_each_kind_of_tamper_is_found_from_the_first_row_on(log: tuple[Copy, ChainKeys], kind: Tamper) -> None:
    copy, keys = log
    tampered, _ = kind(random.Random(1), copy)
    assert examine(tampered.evidence(), keys).problem


@pytest.mark.parametrize(
    ("forge", "problem"),
    [
        (tampers.forge_the_last_rows, "the log was written anew from row"),
        (tampers.leave_out_the_row_of_a_checkpoint, "a checkpoint was signed at row 12700, which does not exist"),
        (tampers.add_a_row_behind_the_head, "there are rows after 12700, the last that was written"),
        (tampers.take_a_checkpoint_of_another_chain, "a checkpoint belongs to another chain"),
        (tampers.seal_a_shorter_segment, "000001.jsonl.gz ends at row 1999 instead of 2000"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_who_has_the_key_but_not_the_anchor_is_found(
    log: tuple[Copy, ChainKeys], forge: Callable[[Copy, ChainKeys], Copy], problem: str
) -> None:
    copy, keys = log
    assert problem in str(examine(forge(copy, keys).evidence(), keys).problem)


def tamper_and_check(kind: Tamper, rng: random.Random, copy: Copy, keys: ChainKeys) -> str | None:
    """What is found from the last checkpoint before the tampered place on: what is before it is as it was."""
    tampered, since = kind(rng, copy)
    return examine(tampered.evidence(), keys, since=max(since, 0)).problem


# --- on disk, through the command -------------------------------------------------------------------

Vandal = Callable[[sqlite3.Connection, Path], object]


def segment(data_dir: Path) -> Path:
    return data_dir / "audit" / "000002.jsonl.gz"


def anchor(data_dir: Path) -> Path:
    return data_dir / "audit" / "anchor.jsonl"


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def coherently(db: sqlite3.Connection, _data_dir: Path) -> None:
    """The database of this morning: rows, checkpoints and head are those of a backup."""
    for table in ("audit", "audit_chain", "audit_checkpoints"):
        db.execute(f"DELETE FROM {table}")
        db.execute(f"INSERT INTO {table} SELECT * FROM backup.{table}")


def cut_everywhere(db: sqlite3.Connection, data_dir: Path) -> None:
    coherently(db, data_dir)
    rewrite(anchor(data_dir), lambda data: b"".join(data.splitlines(keepends=True)[:3]))
    db.execute("UPDATE audit_chain SET anchored = 3")


VANDALS: dict[str, tuple[Vandal, str]] = {
    "an edited row": (lambda db, _: db.execute("UPDATE audit SET caller = 'x' WHERE seq = 550"), "row 550 was changed"),
    "an edited outcome": (lambda db, _: db.execute("UPDATE audit SET outcome = 'ok ' WHERE seq = 600"), "row 600"),
    "an edited time": (lambda db, _: db.execute("UPDATE audit SET at = at + 1 WHERE seq = 601"), "row 601"),
    "an added detail": (lambda db, _: db.execute("UPDATE audit SET detail = '{}' WHERE seq = 602"), "row 602"),
    "bytes for text": (lambda db, _: db.execute("UPDATE audit SET tool = x'ff00' WHERE seq = 603"), "row 60"),
    "a wrong MAC": (lambda db, _: db.execute("UPDATE audit SET mac = NULL WHERE seq = 604"), "row 604"),
    "a deleted row": (lambda db, _: db.execute("DELETE FROM audit WHERE seq = 555"), "row 555 before row 556: removed"),
    "deleted rows": (lambda db, _: db.execute("DELETE FROM audit WHERE seq BETWEEN 551 AND 560"), "rows 551 to 560"),
    "an emptied table": (lambda db, _: db.execute("DELETE FROM audit"), "rows after 400 are missing"),
    "a cut table": (lambda db, _: db.execute("DELETE FROM audit WHERE seq > 640"), "rows after 640 are missing"),
    "rows gone too early": (lambda db, _: db.execute("DELETE FROM audit WHERE seq < 500"), "rows 401 to 499"),
    "an added row": (
        lambda db, _: db.execute(
            "INSERT INTO audit SELECT 651, at, correlation_id, caller, door, service, tool, risk, outcome, "
            "duration_ms, args_hash, approval_id, detail, mac FROM audit WHERE seq = 650"
        ),
        "row 651",
    ),
    "exchanged rows": (
        lambda db, _: db.executescript(
            "UPDATE audit SET seq = -1 WHERE seq = 610; UPDATE audit SET seq = 610 WHERE seq = 611;"
            "UPDATE audit SET seq = 611 WHERE seq = -1;"
        ),
        "row 610 was changed, or put in the place of another",
    ),
    "a changed head": (lambda db, _: db.execute("UPDATE audit_chain SET seq = 640"), "head was changed"),
    "a changed checkpoint": (
        lambda db, _: db.execute("UPDATE audit_checkpoints SET line = replace(line, '\"seq\":50', '\"seq\":51')"),
        "checkpoint",
    ),
    "a missing checkpoint": (
        lambda db, _: db.execute("DELETE FROM audit_checkpoints WHERE number = 4"),
        "checkpoint 4",
    ),
    "missing last checkpoints": (
        lambda db, _: db.execute("DELETE FROM audit_checkpoints WHERE number > 8"),
        "checkpoints were signed",
    ),
    "an old database": (coherently, "the log was cut or rolled back"),
    "an old database and anchor": (cut_everywhere, "head was changed"),
    "no anchor": (lambda _, data_dir: anchor(data_dir).unlink(), "anchor file is missing"),
    "an empty anchor": (lambda _, data_dir: anchor(data_dir).write_bytes(b""), "anchor file was cut"),
    "a damaged anchor": (
        lambda _, data_dir: rewrite(anchor(data_dir), lambda data: data.replace(b"}\n", b"\n", 1)),
        "damaged",
    ),
    "an edited anchor": (
        lambda _, data_dir: rewrite(anchor(data_dir), lambda data: data.replace(b'"seq":1', b'"seq":2', 1)),
        "of the anchor file was changed",
    ),
    "a foreign anchor line": (
        lambda _, data_dir: rewrite(anchor(data_dir), lambda data: b"".join(data.splitlines(keepends=True)[1:])),
        "does not hold checkpoint 1",
    ),
    "no segment": (lambda _, data_dir: segment(data_dir).unlink(), "000002.jsonl.gz is missing"),
    "a changed segment": (
        lambda _, data_dir: rewrite(segment(data_dir), lambda data: data[:500] + b"x" + data[501:]),
        "000002.jsonl.gz was changed",
    ),
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory with 650 rows: two segments whose rows left the table, one whose rows did not; and a backup."""
    config = configured(tmp_path_factory.mktemp("small"), segment_rows=200, checkpoint_rows=50, keep_rows=200)
    with opened(config) as log:
        for n in range(0, 600, 50):
            log.fill(50, n)
        log.keeper.tick()
        with closing(sqlite3.connect(config.data_dir / "hub.db")) as db:
            db.execute("VACUUM INTO ?", (str(config.data_dir / "backup.db"),))
        log.fill(50, 600)
    return config.data_dir


@pytest.fixture
def vandalised(small: Path, tmp_path: Path) -> Callable[[str], Path]:
    """A copy of the data directory after one of VANDALS was at it."""

    def make(name: str) -> Path:
        data_dir = shutil.copytree(small, tmp_path / "data")
        with closing(sqlite3.connect(data_dir / "hub.db", isolation_level=None)) as db:
            db.execute("ATTACH ? AS backup", (str(data_dir / "backup.db"),))
            VANDALS[name][0](db, data_dir)
        return data_dir

    return make


def test_the_command_passes_a_log_that_nobody_touched(small: Path) -> None:
    done = Fleet(small).run("audit", "verify", "--json")
    assert (done.code, done.data["rows"], done.data["segments"], done.data["problem"]) == (0, 650, 3, None)


@pytest.mark.parametrize("name", VANDALS)
def test_what_was_done_to_a_real_log_is_found_and_named(vandalised: Callable[[str], Path], name: str) -> None:
    config = configured(vandalised(name))
    store = open_hub_store(config)
    report = verify(store, config)
    store.close()
    assert VANDALS[name][1] in str(report.problem)


@pytest.mark.parametrize("name", ["an edited row", "a deleted row", "a cut table", "an old database", "no segment"])
def test_the_command_fails_on_it_and_says_what_is_wrong(vandalised: Callable[[str], Path], name: str) -> None:
    done = Fleet(vandalised(name)).run("audit", "verify")
    assert done.code == 1
    assert done.lines[-1].startswith("The log is NOT whole: ")
    assert VANDALS[name][1] in done.out


def test_random_edits_of_real_rows_are_found_by_their_number(small: Path, tmp_path: Path) -> None:
    config, rng = configured(shutil.copytree(small, tmp_path / "data")), random.Random(7)
    store = open_hub_store(config)
    for _ in range(24):
        seq, column = rng.randrange(401, 651), rng.choice(["caller", "tool", "risk", "outcome", "args_hash", "mac"])
        change = f"UPDATE audit SET {column} = %s WHERE seq = {seq}"
        store.write_now(lambda db, sql=change: db.exec_driver_sql(sql % f"'x' || {column}"))  # noqa: B023
        assert verify(store, config).first_bad_seq == seq
        store.write_now(lambda db, sql=change, column=column: db.exec_driver_sql(sql % f"substr({column}, 2)"))
    assert verify(store, config).ok
    store.close()
