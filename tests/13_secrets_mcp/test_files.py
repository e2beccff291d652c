import os
from pathlib import Path

import pytest

from fleetkit.errors import Conflict, FleetError, Invalid, NotFound, OverBudget, Refused, Unavailable
from secrets_mcp.backends.files import Files
from secrets_mcp.backends.port import NewSecret, replace_file


@pytest.fixture
def own(tmp_path: Path) -> Path:
    return tmp_path / "own"


@pytest.fixture
def mount(tmp_path: Path) -> Path:
    """A Kubernetes mount: files are links into a hidden, dated directory."""
    root = tmp_path / "mount"
    data = root / "..2026_11_20"
    data.mkdir(parents=True)
    (data / "api-token").write_text("token-of-the-mount\n", encoding="utf-8")
    (root / "..data").symlink_to(data.name)
    (root / "api-token").symlink_to("..data/api-token")
    return root


@pytest.fixture
def files(own: Path, mount: Path) -> Files:
    return Files([own, mount])


def put(root: Path, name: str, text: str, mode: int = 0o600) -> Path:
    path = root / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    path.chmod(mode)
    return path


def test_a_mounted_secret_is_found_through_its_links(files: Files) -> None:
    assert [item.path for item in files.items()] == ["api-token"]
    assert files.value("api-token", "value") == "token-of-the-mount"


def test_what_is_no_secret_is_not_listed_or_read(files: Files, own: Path) -> None:
    for name in ("README.md", "db.example", ".hidden", ".history/x/1", "fleet_hub__database_url", "good"):
        put(own, name, "text-of-it")
    assert [item.path for item in files.items()] == ["api-token", "good"]
    for name in (".hidden", ".history/x/1", "fleet_hub__database_url", "..data/api-token"):
        with pytest.raises(NotFound):
            files.value(name, "value")


def test_a_file_that_opens_another_store_is_withheld(own: Path) -> None:
    key = put(own, "keepass.password", "master")
    files = Files([own], [key])
    assert files.items() == []
    with pytest.raises(NotFound):
        files.value("keepass.password", "value")


def test_the_first_directory_wins(files: Files, own: Path) -> None:
    put(own, "api-token", "our own")
    assert files.value("api-token", "value") == "our own"


def test_a_link_out_of_its_directory_is_refused(files: Files, own: Path, tmp_path: Path) -> None:
    outside = put(tmp_path, "outside", "not yours")
    own.mkdir()
    (own / "link").symlink_to(outside)
    with pytest.raises(Refused, match="leads out"):
        files.value("link", "value")


def test_a_file_that_others_can_read_is_refused_and_says_how_to_mend_it(files: Files, own: Path) -> None:
    path = put(own, "open", "seen by all", 0o644)
    with pytest.raises(Refused, match=f"chmod 600 {path}|chmod 600 it"):
        files.value("open", "value")
    assert "chmod 600" in next(item.note for item in files.items() if item.path == "open")


@pytest.mark.parametrize(
    ("raw", "text"), [(b"a\n", "a"), (b"a\r\n", "a"), (b"a\n\n", "a\n"), (b" a ", " a "), (b"", "")]
)
def test_only_the_last_line_break_is_not_part_of_the_value(files: Files, own: Path, raw: bytes, text: str) -> None:
    put(own, "x", "").write_bytes(raw)
    assert files.value("x", "value") == text


def test_a_file_that_is_not_text_or_too_large_is_refused(files: Files, own: Path) -> None:
    put(own, "binary", "").write_bytes(b"\xff\xfe\x00")
    put(own, "large", "x" * 70_000)
    with pytest.raises(Invalid, match="not text"):
        files.value("binary", "value")
    with pytest.raises(OverBudget, match="larger"):
        files.value("large", "value")


@pytest.mark.parametrize("path", ["missing", "dir", "api-token/x"])
def test_a_missing_file_is_not_found(files: Files, own: Path, path: str) -> None:
    (own / "dir").mkdir(parents=True)
    with pytest.raises(NotFound):
        files.item(path)


def test_a_file_has_one_field(files: Files) -> None:
    with pytest.raises(NotFound, match="only the field value"):
        files.value("api-token", "password")


def test_a_new_secret_is_a_private_file_in_private_directories(files: Files, own: Path) -> None:
    files.create(NewSecret("a/b/new"), "the-value")
    assert (own / "a/b/new").read_bytes() == b"the-value"
    assert (own / "a/b/new").stat().st_mode & 0o777 == 0o600
    assert {(own / part).stat().st_mode & 0o777 for part in (".", "a", "a/b")} == {0o700}


@pytest.mark.parametrize("name", ["mine", "api-token"])
def test_nothing_is_overwritten_or_covered(files: Files, own: Path, name: str) -> None:
    put(own, "mine", "old")
    with pytest.raises(Conflict, match="rotateSecret"):
        files.create(NewSecret(name), "new")


def test_what_a_file_cannot_keep_is_refused(files: Files) -> None:
    with pytest.raises(Invalid, match="keepass"):
        files.create(NewSecret("x", tags=("a",)), "v")


def test_a_secret_below_another_secret_is_refused(files: Files, own: Path) -> None:
    put(own, "a", "v")
    with pytest.raises(FleetError):
        files.create(NewSecret("a/b"), "w")
    assert files.value("a", "value") == "v"


def test_a_rotated_value_stays_in_the_history_and_comes_back(files: Files) -> None:
    files.create(NewSecret("x"), "one")
    assert files.replace("x", "value", "two").version == 2
    assert files.restore("x", "value").version == 3
    assert files.value("x", "value") == "one"
    files.restore("x", "value")
    assert files.value("x", "value") == "two"


def test_the_history_is_private_and_keeps_ten_values(files: Files, own: Path) -> None:
    files.create(NewSecret("x"), "v0")
    for number in range(1, 14):
        files.replace("x", "value", f"v{number}")
    kept = sorted((own / ".history/x").iterdir(), key=lambda path: int(path.name))
    assert [path.read_text(encoding="utf-8") for path in kept] == [f"v{number}" for number in range(3, 13)]
    assert {path.stat().st_mode & 0o777 for path in kept} == {0o600}
    assert files.item("x").version == 14


def test_without_an_earlier_value_there_is_no_way_back(files: Files) -> None:
    files.create(NewSecret("x"), "one")
    with pytest.raises(Conflict, match="no earlier"):
        files.restore("x", "value")


def test_a_mounted_secret_is_not_changed(files: Files, mount: Path) -> None:
    with pytest.raises(Refused, match="mounted"):
        files.replace("api-token", "value", "new")
    assert (mount / "api-token").read_text(encoding="utf-8") == "token-of-the-mount\n"


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = put(tmp_path, "x", "old")

    def full(_handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)  # a full disk cannot be had otherwise
    with pytest.raises(Unavailable, match="No space left"):
        replace_file(path, b"new")
    assert path.read_bytes() == b"old"
    assert [left.name for left in tmp_path.iterdir()] == ["x"]


def test_a_file_that_vanishes_while_it_is_read_is_unavailable(
    files: Files, own: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = put(own, "x", "v")

    def vanish(_self: Path) -> bytes:
        raise FileNotFoundError(2, "No such file or directory")

    monkeypatch.setattr(Path, "read_bytes", vanish)  # the race itself cannot be timed
    with pytest.raises(Unavailable, match=str(path)):
        files.value("x", "value")


def test_directories_that_do_not_exist_are_empty(tmp_path: Path) -> None:
    files = Files([tmp_path / "nowhere"])
    assert files.items() == []
    assert files.status().state == "ready"
