"""When a workflow starts by itself: cron expressions and time zones."""

from datetime import datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from master_mcp.workflows.definition import Definition, Schedule


def faults(definition: Definition) -> list[str]:
    """What is wrong with the schedule of a definition."""
    schedule = definition.schedule
    if schedule is None:
        return []
    try:
        ZoneInfo(schedule.timezone)
    except (ZoneInfoNotFoundError, ValueError):
        return [f"schedule: there is no time zone {schedule.timezone!r}: write one like Europe/Berlin"]
    try:
        next_after(schedule, 0.0)
    except ValueError as error:
        return [f"schedule: {schedule.cron!r} is no cron expression: {error}"]
    return []


def next_after(schedule: Schedule, at: float) -> float:
    """The first moment of a schedule after `at`, both in epoch seconds. Raises ValueError for a bad expression."""
    from cronsim import CronSim, CronSimError

    start = datetime.fromtimestamp(at, ZoneInfo(schedule.timezone))
    try:
        return next(CronSim(schedule.cron, start)).timestamp()
    except (CronSimError, StopIteration) as error:
        raise ValueError(str(error) or "it never comes") from error
