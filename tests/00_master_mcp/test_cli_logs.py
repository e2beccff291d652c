"""`fleet logs`: the lines of every service in one order."""

import json
import subprocess
from pathlib import Path

import pytest
from commands import FLEET, Fleet


def _line(at: int, **more: str) -> str:
    base = {"timestamp": f"2026-01-01T00:00:{at:02}Z", "level": "info", "service": "master", "event": f"event.{at}"}
    return json.dumps(base | more) + "\n"


@pytest.fixture
def fleet(tmp_path: Path) -> Fleet:
    """Two log files that interleave in time."""
    folder = tmp_path / "logs"
    folder.mkdir()
    hub = [_line(1), _line(3, level="warning", correlation_id="c1", reason="slow"), _line(5, level="debug")]
    spoke = [_line(2, service="cmdb"), _line(4, service="cmdb", level="error", correlation_id="c1")]
    (folder / "hub.log").write_text("".join(hub), encoding="utf-8")
    (folder / "cmdb.log").write_text("".join(spoke), encoding="utf-8")
    return Fleet(tmp_path)


def _events(fleet: Fleet, *words: str) -> list[str]:
    return [json.loads(line)["event"] for line in fleet.run("logs", "--json", *words).lines]


def test_lines_of_all_services_come_in_the_order_of_time(fleet: Fleet) -> None:
    assert _events(fleet) == ["event.1", "event.2", "event.3", "event.4", "event.5"]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("--service", "cmdb"), ["event.2", "event.4"]),
        (("--service", "hub"), ["event.1", "event.3", "event.5"]),
        (("--level", "warning"), ["event.3", "event.4"]),
        (("--correlation-id", "c1"), ["event.3", "event.4"]),
        (("--correlation-id", "c1", "--service", "cmdb"), ["event.4"]),
        (("-n", "2"), ["event.4", "event.5"]),
        (("-n", "0"), []),
    ],
)
def test_lines_are_chosen(fleet: Fleet, words: tuple[str, ...], expected: list[str]) -> None:
    assert _events(fleet, *words) == expected


def test_a_line_for_people_has_time_level_service_event_and_the_rest(fleet: Fleet) -> None:
    line = fleet.run("logs", "--level", "warning").lines[0]
    assert line == "2026-01-01T00:00:03Z warning master     event.3 reason=slow correlation_id=c1"


def test_what_a_crash_wrote_beside_the_log_is_an_error_at_its_place(fleet: Fleet) -> None:
    with (fleet.data_dir / "logs" / "cmdb.log").open("a", encoding="utf-8") as file:
        file.write("Segmentation fault\n")
    found = fleet.run("logs", "--json", "--level", "error").lines
    assert json.loads(found[-1]) == {
        "timestamp": "2026-01-01T00:00:04Z", "level": "error", "service": "cmdb", "event": "Segmentation fault",
    }  # fmt: skip


def test_an_exception_is_shown_below_its_line(fleet: Fleet) -> None:
    with (fleet.data_dir / "logs" / "hub.log").open("a", encoding="utf-8") as file:
        file.write(_line(6, level="error", exception="Traceback\n  ValueError: x"))
    assert fleet.run("logs", "--level", "error").lines[-2:] == ["Traceback", "ValueError: x"]


def test_following_shows_new_lines_whole_and_survives_rotation(fleet: Fleet) -> None:
    log = fleet.data_dir / "logs" / "hub.log"
    command = [FLEET, "logs", "--json", "--follow", "-n", "1"]
    with subprocess.Popen(command, env=fleet.env(), stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        seen = [following.stdout.readline()]
        with log.open("a", encoding="utf-8") as file:
            first, rest = _line(7)[:20], _line(7)[20:]
            file.write(first)
            file.flush()
            file.write(rest)
        seen.append(following.stdout.readline())
        log.rename(log.with_name("hub.log.1"))
        log.write_text(_line(8), encoding="utf-8")
        seen.append(following.stdout.readline())
        following.terminate()
    assert [json.loads(line)["event"] for line in seen] == ["event.5", "event.7", "event.8"]


def test_an_unknown_level_is_named(fleet: Fleet) -> None:
    done = fleet.run("logs", "--level", "loud")
    assert done.code == 2
    assert done.err == "fleet: level 'loud': use one of debug, info, warning, error, critical\n"


def test_without_logs_there_is_nothing_to_show(tmp_path: Path) -> None:
    done = Fleet(tmp_path).run("logs")
    assert (done.code, done.out, done.err) == (0, "", "")
