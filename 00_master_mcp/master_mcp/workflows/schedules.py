"""When a workflow starts by itself: cron expressions and time zones; moments as people write them."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from fleetkit.errors import Invalid
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


def moment(value: object) -> float:
    """Epoch seconds of a moment: RFC 3339 text, UTC where it names no zone, or the number itself. Raises Invalid."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value)
    try:
        found = datetime.fromisoformat(str(value))
    except ValueError as error:
        raise Invalid(f"{value!r} is no moment: write 2027-01-31T08:00:00+01:00 or epoch seconds") from error
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
