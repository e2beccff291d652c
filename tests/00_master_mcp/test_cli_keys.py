"""`fleet keys`: with the hub running and stopped."""

import stat
from collections.abc import Generator
from pathlib import Path

import processes
import pytest
from commands import Fleet


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory) -> Generator[Fleet]:
    """A running hub with no spoke."""
    data_dir: Path = tmp_path_factory.mktemp("fleet")
    with processes.hub(data_dir, {}) as hub:
        yield Fleet(data_dir, hub.port)


def _use(fleet: Fleet, key: str, folder: Path) -> str:
    """What a command says when it uses `key`: nothing when it works."""
    path = folder / "used.key"
    path.write_text(key, encoding="utf-8")
    return fleet.run("tools", "--key-file", str(path)).err


def test_a_new_key_is_printed_alone_and_works_at_once(fleet: Fleet, tmp_path: Path) -> None:
    done = fleet.run("keys", "create", "alone")
    assert done.code == 0
    assert len(done.out.split()) == 1
    assert "alone (agent: change:*)" in done.err
    assert _until_known(fleet, done.out, tmp_path) == ""


def _until_known(fleet: Fleet, key: str, folder: Path) -> str:
    """A running hub looks for new keys twice a second; each use of the command takes about as long."""
    answers = (_use(fleet, key, folder) for _ in range(20))
    return next((answer for answer in answers if not answer), "never known")


def test_a_revoked_key_is_refused_by_the_running_hub(fleet: Fleet, tmp_path: Path) -> None:
    key = fleet.run("keys", "create", "short-lived").out
    assert _until_known(fleet, key, tmp_path) == ""
    done = fleet.run("keys", "revoke", "short-lived")
    assert (done.code, done.out) == (0, "")
    answers = (_use(fleet, key, tmp_path) for _ in range(20))
    assert any("unknown, revoked or expired" in answer for answer in answers)


def test_the_list_shows_state_and_scopes_and_no_secret(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    secret = fleet.run("keys", "create", "reader", "--scope", "read:cmdb.*", "--expires", "1d").out.strip()
    fleet.run("keys", "create", "boss", "--role", "operator")
    fleet.run("keys", "revoke", "reader")
    done = fleet.run("keys", "list", "--json")
    assert [(k["name"], k["role"], k["state"], k["scopes"]) for k in done.data] == [
        ("reader", "agent", "revoked", ["read:cmdb.*"]),
        ("boss", "operator", "live", ["destroy:*", "manage"]),
    ]
    assert done.data[0]["expires"] - done.data[0]["created"] == 86400
    table = fleet.run("keys", "list").out
    assert "read:cmdb.*" in table
    assert secret.rpartition("_")[2] not in table + done.out


def test_groups_are_given_when_a_key_is_made_listed_and_kept_by_rotation(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    assert fleet.run("keys", "create", "boss", "--role", "operator", "--group", "dba", "--group", "web").code == 0
    fleet.run("keys", "rotate", "boss", "--overlap", "10m")
    assert [(k["state"], k["groups"]) for k in fleet.run("keys", "list", "--json").data] == [
        ("live", ["dba", "web"])
    ] * 2
    assert "dba, web" in fleet.run("keys", "list").out


def test_a_key_can_go_into_a_private_file(tmp_path: Path) -> None:
    fleet, target = Fleet(tmp_path / "data"), tmp_path / "agent.key"
    done = fleet.run("keys", "create", "filed", "--out", str(target))
    assert (done.code, done.out) == (0, "")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    assert target.read_text(encoding="utf-8").startswith("flt_")


def test_a_file_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    target = tmp_path / "agent.key"
    target.write_text("mine", encoding="utf-8")
    done = Fleet(tmp_path / "data").run("keys", "create", "filed", "--out", str(target))
    assert done.code == 1
    assert done.err == f"fleet: {target} exists: name a new file\n"
    assert target.read_text(encoding="utf-8") == "mine"


def test_rotating_the_client_key_puts_the_new_one_into_its_file(tmp_path: Path) -> None:
    fleet, file = Fleet(tmp_path), tmp_path / "client.key"
    fleet.run("keys", "create", "client", "--out", str(file))
    before = file.read_text(encoding="utf-8")
    done = fleet.run("keys", "rotate", "client", "--overlap", "10m")
    assert (done.code, done.out) == (0, "")
    after = file.read_text(encoding="utf-8")
    assert after != before
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    states = [(key["name"], key["state"]) for key in fleet.run("keys", "list", "--json").data]
    assert states == [("client", "live"), ("client", "live")]  # the old one for ten minutes more


def test_rotating_another_key_prints_the_new_one(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    old = fleet.run("keys", "create", "bot").out
    new = fleet.run("keys", "rotate", "bot").out
    assert new.startswith("flt_")
    assert new != old
    assert [key["state"] for key in fleet.run("keys", "list", "--json").data] == ["revoked", "live"]


@pytest.mark.parametrize(
    ("words", "code", "reason"),
    [
        (("create", "x", "--scope", "everything"), 2, "write <read|change|destroy>:<tool glob>"),
        (("create", "x", "--role", "king"), 2, "use agent or operator"),
        (("create", "x", "--scope", "manage"), 2, "an agent key never manages"),
        (("create", "x", "--group", "operators"), 2, "is what --role gives"),
        (("create", "x", "--expires", "soon"), 2, "write 90s, 15m, 12h or 30d"),
        (("revoke", "nobody"), 1, "no live key is called 'nobody'"),
        (("rotate", "nobody"), 1, "no live key is called 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(tmp_path: Path, words: tuple[str, ...], code: int, reason: str) -> None:
    done = Fleet(tmp_path).run("keys", *words)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith("fleet: ")
    assert reason in done.err


def test_a_name_is_used_by_one_live_key(tmp_path: Path) -> None:
    fleet = Fleet(tmp_path)
    fleet.run("keys", "create", "twin")
    done = fleet.run("keys", "create", "twin")
    assert done.code == 1
    assert "a live key is already named 'twin'" in done.err
