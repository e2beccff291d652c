"""Logging: one JSON object per line on stdout, correlation id bound, secrets masked last."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, TextIO

import structlog

from fleetkit import correlation, detect
from fleetkit.scrub import scrubber

Event = MutableMapping[str, Any]

_PLAIN = (str, int, float, bool, list, tuple, dict, type(None))  # anything else is rendered by its repr


def get_logger() -> structlog.stdlib.BoundLogger:
    """The logger of a module: `log.info("proxy.call.failed", tool=...)`. Never an argument value."""
    return structlog.get_logger()


def configure(service: str, level: str = "info", stream: TextIO | None = None) -> None:
    """Send this process's log lines, ours and the libraries', to `stream` (stdout by default) as JSON."""

    def name_service(_logger: object, _method: str, event: Event) -> Event:
        event["service"] = service
        return event

    shared: list[Any] = [
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        name_service,
        _bind_correlation,
        structlog.processors.format_exc_info,
        _mask,
    ]
    out = stream or sys.stdout
    structlog.configure(
        processors=[*shared, structlog.processors.JSONRenderer()],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(out),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(),
            ],
        )
    )
    logging.basicConfig(handlers=[handler], level=logging.WARNING, force=True)


def _bind_correlation(_logger: object, _method: str, event: Event) -> Event:
    context = correlation.current()
    if context is not None:
        event.setdefault("correlation_id", context.correlation_id)
    return event


def _mask(_logger: object, _method: str, event: Event) -> Event:
    for key, value in event.items():
        event[key] = scrubber.data(value if isinstance(value, _PLAIN) else repr(value))
    masked, found = detect.mask_data(event)
    return masked if found else event
