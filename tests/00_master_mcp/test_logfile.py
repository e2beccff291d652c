"""The hub's log file."""

from pathlib import Path

from master_mcp.logfile import LogFile


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_lines_are_on_disk_as_they_are_written(tmp_path: Path) -> None:
    with LogFile(tmp_path / "logs" / "hub.log") as log:
        log.write("one\n")
        assert (tmp_path / "logs" / "hub.log").read_text(encoding="utf-8") == "one\n"


def test_a_file_that_exists_is_continued(tmp_path: Path) -> None:
    for word in ("one\n", "two\n"):
        with LogFile(tmp_path / "hub.log") as log:
            log.write(word)
    assert (tmp_path / "hub.log").read_text(encoding="utf-8") == "one\ntwo\n"


def test_a_full_file_moves_aside_and_the_newest_are_kept(tmp_path: Path) -> None:
    with LogFile(tmp_path / "hub.log", limit=3, kept=2) as log:
        for word in ("1111\n", "2222\n", "3333\n", "4444\n"):
            log.write(word)
    assert _names(tmp_path) == ["hub.log", "hub.log.1", "hub.log.2"]
    assert [(tmp_path / name).read_text(encoding="utf-8") for name in _names(tmp_path)] == [
        "4444\n",
        "3333\n",
        "2222\n",
    ]


def test_a_line_written_in_pieces_stays_in_one_file(tmp_path: Path) -> None:
    with LogFile(tmp_path / "hub.log", limit=3) as log:
        log.write("11111")
        log.write("22\n")
        log.flush()
    assert _names(tmp_path) == ["hub.log"]


def test_the_file_is_private(tmp_path: Path) -> None:
    with LogFile(tmp_path / "logs" / "hub.log"):
        assert (tmp_path / "logs" / "hub.log").stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "logs").stat().st_mode & 0o777 == 0o700
