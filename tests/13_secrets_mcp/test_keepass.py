import fcntl
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from pykeepass import PyKeePass
from vaults import PASSWORD, SEED, WEB1

from fleetkit.errors import Conflict, FleetError, Invalid, NotFound, OverBudget, Refused, Unavailable
from secrets_mcp.backends.keepass import KeePass
from secrets_mcp.backends.port import NewSecret
from secrets_mcp.backends.totp import code

Open = Callable[[], Any]  # an untyped library


def test_entries_are_listed_by_path_without_the_recycle_bin(keepass: KeePass) -> None:
    assert sorted(item.path for item in keepass.items()) == ["db/prod", "ssh/odd%2Fname%231", "ssh/web1"]


def test_an_entry_is_described_by_names_and_times(keepass: KeePass) -> None:
    item = keepass.item("ssh/web1")
    assert set(item.fields) == {
        *("password", "username", "url", "notes", "totp", "Recovery Code"),
        *("attachment:id_web1", "attachment:photo.jpg"),
    }
    assert item.tags == ("prod",)
    assert item.modified_at is not None
    assert item.modified_at.tzinfo is UTC
    assert item.version == 1


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("password", WEB1),
        ("username", "deploy"),
        ("url", "https://web1.example"),
        ("notes", "the web server"),
        ("Recovery Code", "rc-1234-5678-rc"),
        ("attachment:id_web1", "-----BEGIN KEY-----\nabcdefghijkl\n-----END KEY-----\n"),
    ],
)
def test_every_field_has_its_value(keepass: KeePass, field: str, value: str) -> None:
    assert keepass.value("ssh/web1", field) == value


def test_the_one_time_password_is_the_code_of_now(keepass: KeePass) -> None:
    before = code({"otp": SEED}, time.time())
    found = keepass.value("ssh/web1", "totp")
    assert found in {before, code({"otp": SEED}, time.time())}


@pytest.mark.parametrize("field", ["otp", "TimeOtp-Secret-Base32", "TOTP Seed"])
def test_the_seed_itself_is_never_handed_out(keepass: KeePass, field: str) -> None:
    with pytest.raises(Refused, match="totp"):
        keepass.value("ssh/web1", field)


@pytest.mark.parametrize("field", ["Missing", "attachment:none", "x\"] | //Value[contains(., 'h"])
def test_a_field_that_is_not_there_is_not_found(keepass: KeePass, field: str) -> None:
    with pytest.raises(NotFound):
        keepass.value("ssh/web1", field)


@pytest.mark.parametrize("path", ["ssh/deleted", "ssh", "web1", 'ssh/web1"] | //Entry["', "Recycle Bin/deleted"])
def test_a_path_that_is_not_there_is_not_found(keepass: KeePass, path: str) -> None:
    with pytest.raises(NotFound):
        keepass.item(path)


def test_a_binary_attachment_is_no_secret_text(keepass: KeePass) -> None:
    with pytest.raises(Invalid, match="not text"):
        keepass.value("ssh/web1", "attachment:photo.jpg")


def test_an_entry_without_one_time_password_says_so(keepass: KeePass) -> None:
    with pytest.raises(NotFound, match="one-time"):
        keepass.value("db/prod", "totp")


def test_two_entries_of_one_name_are_not_guessed_between(keepass: KeePass, as_keepassxc: Open) -> None:
    kp = as_keepassxc()
    kp.add_entry(kp.find_groups(name="db", first=True), "prod", "other", "v", force_creation=True)
    kp.save()
    with pytest.raises(Conflict, match="2 entries"):
        keepass.value("db/prod", "password")


def test_a_field_that_refers_to_another_entry_is_not_followed(keepass: KeePass, as_keepassxc: Open) -> None:
    kp = as_keepassxc()
    kp.find_entries(title="prod", first=True).password = "{REF:P@T:web1}"
    kp.save()
    with pytest.raises(Invalid, match="another entry"):
        keepass.value("db/prod", "password")


def test_a_change_by_another_program_is_seen_at_once(keepass: KeePass, as_keepassxc: Open) -> None:
    assert keepass.value("db/prod", "password") == "the-database-value"
    kp = as_keepassxc()
    kp.find_entries(title="prod", first=True).password = "changed-elsewhere"
    kp.save()  # rotates the salt: the kept key no longer fits and the password is used again
    assert keepass.value("db/prod", "password") == "changed-elsewhere"


def test_a_new_entry_is_there_for_other_programs_with_its_groups(keepass: KeePass, as_keepassxc: Open) -> None:
    until = datetime.now(UTC).replace(microsecond=0) + timedelta(days=9)
    item = keepass.create(NewSecret("a/b/new", "me", ("x", "y"), until), "the-value-of-new")
    entry = as_keepassxc().find_entries(path=["a", "b", "new"])
    assert (entry.username, entry.password, entry.tags) == ("me", "the-value-of-new", ["x", "y"])
    assert entry._is_property_protected("Password")
    assert (item.path, item.expires_at) == ("a/b/new", until)


def test_an_existing_entry_is_not_overwritten(keepass: KeePass) -> None:
    with pytest.raises(Conflict, match="rotateSecret"):
        keepass.create(NewSecret("ssh/web1"), "x")
    assert keepass.value("ssh/web1", "password") == WEB1


def test_a_rotated_value_stays_in_the_history_and_comes_back(keepass: KeePass, as_keepassxc: Open) -> None:
    assert keepass.replace("ssh/web1", "password", "second-value").version == 2
    assert as_keepassxc().find_entries(title="web1", first=True).history[0].password == WEB1
    assert keepass.restore("ssh/web1", "password").version == 3
    assert keepass.value("ssh/web1", "password") == WEB1
    keepass.restore("ssh/web1", "password")
    assert keepass.value("ssh/web1", "password") == "second-value"


def test_a_custom_field_rotates_alone(keepass: KeePass) -> None:
    keepass.replace("ssh/web1", "Recovery Code", "rc-new")
    assert keepass.value("ssh/web1", "Recovery Code") == "rc-new"
    assert keepass.value("ssh/web1", "password") == WEB1


def test_the_history_keeps_the_last_ten_values(keepass: KeePass, as_keepassxc: Open) -> None:
    for number in range(12):
        keepass.replace("ssh/web1", "password", f"value-{number}")
    history = as_keepassxc().find_entries(title="web1", first=True).history
    assert [old.password for old in history] == [f"value-{number}" for number in range(1, 11)]


def test_an_expiry_moves_on_with_a_new_value(keepass: KeePass) -> None:
    keepass.create(NewSecret("tmp", expires_at=datetime.now(UTC) + timedelta(days=30)), "one-value")
    before = keepass.item("tmp").expires_at
    after = keepass.replace("tmp", "password", "two-value").expires_at
    assert before is not None
    assert after is not None
    assert timedelta(0) <= after - before < timedelta(days=1)


def test_without_an_earlier_value_there_is_no_way_back(keepass: KeePass) -> None:
    with pytest.raises(Conflict, match="no earlier"):
        keepass.restore("ssh/web1", "password")


@pytest.mark.parametrize("field", ["totp", "attachment:id_web1"])
def test_a_code_or_a_file_cannot_be_rotated(keepass: KeePass, field: str) -> None:
    with pytest.raises(Invalid, match="cannot be rotated"):
        keepass.replace("ssh/web1", field, "x")


def test_a_failed_change_leaves_memory_and_file_as_they_were(keepass: KeePass, database: Path) -> None:
    before = database.read_bytes()
    with pytest.raises(NotFound):
        keepass.replace("ssh/web1", "Missing", "x")
    assert database.read_bytes() == before
    assert keepass.item("ssh/web1").version == 1


def test_saving_keeps_the_file_private_and_leaves_nothing_beside_it(keepass: KeePass, database: Path) -> None:
    database.chmod(0o644)
    keepass.replace("ssh/web1", "password", "next-value")
    assert database.stat().st_mode & 0o777 == 0o600
    assert sorted(path.name for path in database.parent.iterdir()) == [".fleet.kdbx.fleet-lock", "fleet.kdbx"]


def test_two_writers_of_the_fleet_do_not_lose_each_others_change(database: Path, password_file: Path) -> None:
    first, second = (KeePass(database, password_file, None) for _ in range(2))
    first.items()
    second.create(NewSecret("from/second"), "v-second")
    first.create(NewSecret("from/first"), "v-first")
    assert {"from/first", "from/second"} <= {item.path for item in second.items()}


def test_a_write_waits_for_another_writer_only_so_long(database: Path, password_file: Path) -> None:
    impatient = KeePass(database, password_file, None, lock_tries=1)
    handle = os.open(database.with_name(".fleet.kdbx.fleet-lock"), os.O_CREAT | os.O_RDWR)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(Unavailable, match="another process is writing"):
        impatient.replace("ssh/web1", "password", "x")
    os.close(handle)
    assert impatient.replace("ssh/web1", "password", "x-value").version == 2


def test_a_change_between_reading_and_saving_is_a_conflict_and_not_overwritten(
    database: Path, password_file: Path, as_keepassxc: Open
) -> None:
    class Interrupted(KeePass):
        def _save(self, kp: object) -> None:
            other = as_keepassxc()
            other.find_entries(title="prod", first=True).password = "saved-in-between"
            other.save()
            super()._save(kp)

    with pytest.raises(Conflict, match="another program changed"):
        Interrupted(database, password_file, None).replace("ssh/web1", "password", "x")
    kept = KeePass(database, password_file, None)
    assert kept.value("db/prod", "password") == "saved-in-between"
    assert kept.value("ssh/web1", "password") == WEB1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, password_file: Path) -> None:
    nowhere = tmp_path / "missing" / "x.kdbx"
    with pytest.raises(Unavailable, match="missing"):
        KeePass(nowhere, password_file, None).create(NewSecret("a"), "v")


def test_a_wrong_password_names_the_files_and_not_the_password(database: Path, password_file: Path) -> None:
    password_file.write_text("wrong-horse", encoding="utf-8")
    with pytest.raises(Unavailable) as caught:
        KeePass(database, password_file, None).items()
    assert str(password_file) in str(caught.value)
    assert "wrong-horse" not in str(caught.value)


def test_the_same_wrong_password_is_not_tried_again(
    database: Path, password_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    password_file.write_text("wrong", encoding="utf-8")
    keepass = KeePass(database, password_file, None)
    with pytest.raises(Unavailable):
        keepass.items()
    monkeypatch.setattr("secrets_mcp.backends.kdbx.open_with_password", None)  # calling it would be a TypeError
    with pytest.raises(Unavailable, match="does not open"):
        keepass.items()
    assert keepass.status().state == "unavailable"


def test_further_wrong_passwords_are_tried_ever_more_slowly(database: Path, password_file: Path) -> None:
    now = [0.0]
    keepass = KeePass(database, password_file, None, clock=lambda: now[0])

    def attempt(password: str) -> FleetError:
        password_file.write_text(password, encoding="utf-8")
        with pytest.raises(FleetError) as caught:
            keepass.items()
        return caught.value

    assert isinstance(attempt("wrong-1"), Unavailable)
    limited = attempt("wrong-2")
    assert isinstance(limited, OverBudget)
    assert limited.retry_after == 2.0
    now[0] = 2.0
    assert isinstance(attempt("wrong-2"), Unavailable)
    assert attempt("wrong-3").retry_after == 4.0


def test_the_right_password_opens_it_after_the_wait_and_ends_the_counting(database: Path, password_file: Path) -> None:
    now = [0.0]
    keepass = KeePass(database, password_file, None, clock=lambda: now[0])
    password_file.write_text("wrong", encoding="utf-8")
    with pytest.raises(Unavailable):
        keepass.items()
    password_file.write_text(PASSWORD, encoding="utf-8")
    now[0] = 3.0
    assert len(keepass.items()) == 3
    assert keepass.status().state == "ready"


def test_a_key_file_is_used_beside_the_password(tmp_path: Path, database: Path, password_file: Path) -> None:
    key = tmp_path / "fleet.key"
    key.write_bytes(os.urandom(32))
    kp: Any = PyKeePass(str(database), PASSWORD)
    kp.keyfile = str(key)
    kp.save()
    with pytest.raises(Unavailable, match="does not open"):
        KeePass(database, password_file, None).items()
    with_key = KeePass(database, password_file, key)
    assert with_key.value("ssh/web1", "password") == WEB1
    assert with_key.replace("ssh/web1", "password", "again-a-value").version == 2
    assert KeePass(database, password_file, key).value("ssh/web1", "password") == "again-a-value"


@pytest.mark.parametrize("damage", [b"", b"not a database", b"\x03\xd9\xa2\x9a\x67\xfb\x4b\xb5" + b"\x00" * 60])
def test_another_kind_of_file_is_called_damaged(database: Path, password_file: Path, damage: bytes) -> None:
    database.write_bytes(damage)
    with pytest.raises(Unavailable, match="damaged or of an unknown kind"):
        KeePass(database, password_file, None).items()


@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
def test_a_flipped_or_cut_file_is_never_read_half(database: Path, password_file: Path, at: float) -> None:
    raw = database.read_bytes()
    place = int(len(raw) * at)
    for broken in (raw[:place], raw[:place] + bytes([raw[place] ^ 0xFF]) + raw[place + 1 :]):
        database.write_bytes(broken)
        with pytest.raises(Unavailable):
            KeePass(database, password_file, None).items()


def test_a_missing_database_or_password_file_is_named(database: Path, password_file: Path, tmp_path: Path) -> None:
    missing = tmp_path / "missing"
    for keepass in (KeePass(missing, password_file, None), KeePass(database, missing, None)):
        assert keepass.status().state == "unavailable"
        with pytest.raises(Unavailable, match=str(missing)):
            keepass.items()


def test_without_configuration_it_is_empty_and_says_what_to_set() -> None:
    keepass = KeePass(None, None, None)
    assert keepass.items() == []
    assert keepass.status().state == "not_configured"
    assert not keepass.writable
    with pytest.raises(Unavailable, match="keepass_path"):
        keepass.item("a")


def test_the_slow_key_derivation_runs_once_for_many_reads_and_writes(
    keepass: KeePass, monkeypatch: pytest.MonkeyPatch
) -> None:
    keepass.items()
    monkeypatch.setattr("secrets_mcp.backends.kdbx.open_with_password", None)
    for number in range(3):
        keepass.replace("ssh/web1", "password", f"value-{number}")
    assert keepass.value("ssh/web1", "password") == "value-2"
