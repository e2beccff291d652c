"""Log: one JSON object per line, from us and from libraries alike, with the call's id and no secret."""

import io
import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from fleetkit import correlation, log
from fleetkit.correlation import Context
from fleetkit.scrub import MASK, scrubber

Lines = Callable[[], list[dict[str, Any]]]
VALUE = "correct-horse-battery"


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def lines(stream: io.StringIO) -> Lines:
    """What was written, parsed; fails when a line is no JSON object."""
    log.configure("demo", "info", stream)
    return lambda: [orjson.loads(line) for line in stream.getvalue().splitlines()]


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> str:
    """A value known to be secret for one test."""
    monkeypatch.setattr(scrubber, "_values", {})
    monkeypatch.setattr(scrubber, "_matcher", None)  # else the one of this test would stay
    scrubber.add(VALUE)
    return VALUE


def test_a_line_names_time_service_level_event_and_its_keys(lines: Lines):
    log.get_logger().info("catalog.spoke.listed", spoke="cmdb", tools=17)
    line = lines()[0]
    assert datetime.fromisoformat(line.pop("timestamp")).tzinfo == UTC
    assert line == {"service": "demo", "level": "info", "event": "catalog.spoke.listed", "spoke": "cmdb", "tools": 17}


def test_a_value_with_line_breaks_stays_one_line(lines: Lines, stream: io.StringIO):
    log.get_logger().warning("tool.odd", what='two\nlines and a "quote"')
    assert len(stream.getvalue().splitlines()) == 1
    assert lines()[0]["what"] == 'two\nlines and a "quote"'


def test_lines_below_the_level_are_not_written(lines: Lines):
    log.get_logger().debug("proxy.call.done")
    assert lines() == []


def test_the_level_is_configured(stream: io.StringIO):
    log.configure("demo", "debug", stream)
    log.get_logger().debug("proxy.call.done")
    assert orjson.loads(stream.getvalue())["level"] == "debug"


def test_a_logger_made_before_configuring_follows_it(stream: io.StringIO):
    early = log.get_logger()
    log.configure("demo", "info", stream)
    early.info("hub.started")
    assert orjson.loads(stream.getvalue())["service"] == "demo"


def test_every_line_of_a_call_carries_its_correlation_id_and_none_outside(lines: Lines):
    with correlation.bound(Context("c" * 32)):
        log.get_logger().info("inside")
        logging.getLogger("library").warning("inside too")
    log.get_logger().info("outside")
    assert [line.get("correlation_id") for line in lines()] == ["c" * 32, "c" * 32, None]


def test_a_correlation_id_given_by_hand_wins(lines: Lines):
    with correlation.bound(Context("c" * 32)):
        log.get_logger().info("about.another", correlation_id="d" * 32)
    assert lines()[0]["correlation_id"] == "d" * 32


def test_a_librarys_warning_is_a_line_like_ours(lines: Lines):
    logging.getLogger("uvicorn.error").warning("slow client %s", "10.0.0.9")
    line = lines()[0]
    assert (line["event"], line["level"], line["service"]) == ("slow client 10.0.0.9", "warning", "demo")
    assert set(line) == {"event", "level", "service", "timestamp"}


def test_a_librarys_chatter_is_not_written(lines: Lines):
    logging.getLogger("alembic").info("Context impl SQLiteImpl.")
    assert lines() == []


@pytest.mark.parametrize("ours", [True, False])
def test_an_exception_is_a_traceback_in_one_key(lines: Lines, ours: bool):
    loggers: dict[bool, Any] = {True: log.get_logger(), False: logging.getLogger("library")}
    try:
        raise ValueError("broken inside")
    except ValueError as error:
        loggers[ours].error("tool.crashed", exc_info=error)
    line = lines()[0]
    assert line["exception"].startswith("Traceback")
    assert line["exception"].endswith("ValueError: broken inside")


def test_a_secret_is_masked_wherever_it_stands(lines: Lines, secret: str):
    class Login:
        def __repr__(self) -> str:
            return f"Login({secret})"

    log.get_logger().info(
        "vendor.failed",
        text=f"password {secret} refused",
        nested={"url": [f"https://u:{secret}@host"]},
        pair=(secret, 1),
        thing=Login(),
    )
    line = lines()[0]
    assert line["text"] == f"password {MASK} refused"
    assert line["nested"] == {"url": [f"https://u:{MASK}@host"]}
    assert line["pair"] == [MASK, 1]
    assert line["thing"] == f"Login({MASK})"


@pytest.mark.parametrize("ours", [True, False])
def test_a_secret_in_an_exception_is_masked(lines: Lines, secret: str, ours: bool):
    loggers: dict[bool, Any] = {True: log.get_logger(), False: logging.getLogger("library")}
    try:
        raise ValueError(f"login with {secret} failed")
    except ValueError as error:
        loggers[ours].error("tool.crashed", exc_info=error)
    assert f"login with {MASK} failed" in lines()[0]["exception"]
    assert secret not in str(lines())


def test_a_secret_in_a_librarys_line_is_masked(lines: Lines, secret: str):
    logging.getLogger("vendor").warning("GET /?token=%s", secret)
    assert lines()[0]["event"] == f"GET /?token={MASK}"


@pytest.mark.parametrize("ours", [True, False])
def test_a_secret_that_nobody_told_us_about_is_masked_by_its_format(lines: Lines, ours: bool):
    token = "ghp_" + "aB3" * 12
    write = {True: log.get_logger().error, False: logging.getLogger("theirs").error}[ours]
    write(f"cannot log in with {token}")
    assert lines()[0]["event"] == f"cannot log in with {MASK}"


def test_standard_output_is_the_default(capsys: pytest.CaptureFixture[str]):
    log.configure("demo")
    log.get_logger().info("hub.started")
    assert orjson.loads(capsys.readouterr().out)["event"] == "hub.started"
