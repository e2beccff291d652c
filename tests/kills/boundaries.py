"""The places at which an engine is killed, named by what happens there.

`install` wraps, in the process that is to be killed, what makes a run durable: each place of a journal, each row of
a step that is waited for, each other write about runs and approvals, each call of a step. `reached` hears each of
them by name, in the thread that is there; the tools of the demo spoke tell the moments inside of a call.
"""

import inspect
from collections.abc import Awaitable, Callable, Generator
from typing import Any

from dbos import DBOS

from fleetkit.shapes import mapping
from fleetkit.store import Store
from master_mcp.proxy.call import Proxy, ToolCall
from master_mcp.workflows.engine import dbos
from master_mcp.workflows.ledger import At, Ledger
from master_mcp.workflows.record import StepRecord, StepStatus

Reached = Callable[[str], None]
ROOMS = ("master_mcp.workflows", "master_mcp.approvals")


def install(reached: Reached) -> None:
    """From now on tell of every boundary of this process."""
    last = ""  # what a journal said last, which tells one change of a run's state from another

    def journaled(name: str) -> None:
        nonlocal last
        last = name
        reached(name)

    _journals(journaled)
    _ledgers(reached)
    _writes(lambda name: reached(f"{name} ({last})" if "Executor._changed" in name else name))
    _calls(reached)


class _Watched:
    """A place of a journal; it tells that its work was recorded, unless that was done in an earlier life."""

    def __init__(self, place: Awaitable[Any], told: Callable[[], None], worked: list[bool]) -> None:
        self._place = place
        self._told = told
        self._worked = worked

    def __await__(self) -> Generator[Any, None, Any]:
        found = yield from self._place.__await__()
        if self._worked:
            self._told()
        return found


def _journals(reached: Reached) -> None:
    journal: Any = dbos._Journal  # pyright: ignore[reportPrivateUsage] - where every journal comes from
    draw = journal.step

    def step(self: Any, name: str, work: Callable[[], Awaitable[Any]]) -> _Watched:
        worked: list[bool] = []
        part = "-" in (DBOS.workflow_id or "")  # as in the ids of runs that are steps of others
        name = f"part.{name}" if part else name

        async def watched() -> Any:
            worked.append(True)
            reached(f"journal begun {name}")
            found = await work()
            reached(f"journal done {name}")
            return found

        return _Watched(draw(self, name, watched), lambda: reached(f"journal recorded {name}"), worked)

    journal.step = step


def _ledgers(reached: Reached) -> None:
    sure, kept = Ledger.sure, Ledger.kept

    async def watched_sure(self: Ledger, at: At, status: StepStatus, **values: Any) -> None:
        name = f"{_at(at)} {status}"
        reached(f"ledger before {name}")
        await sure(self, at, status, **values)
        reached(f"ledger after {name}")

    async def watched_kept(self: Ledger, at: At, record: StepRecord) -> None:
        name = f"{_at(at)} {record.status}"
        reached(f"ledger before {name}")
        await kept(self, at, record)
        reached(f"ledger after {name}")

    Ledger.sure, Ledger.kept = watched_sure, watched_kept


def _at(at: At) -> str:
    return at[0] if at[1] is None else f"{at[0]}[{at[1]}]"


def _writes(reached: Reached) -> None:
    submit = Store.submit

    def watched(self: Store, work: Callable[[Any], Any]) -> Any:
        name = _named(work)
        if name is None:
            return submit(self, work)
        reached(f"write before {name}")
        done = submit(self, work)
        if "Executor._changed" not in name:  # nobody waits for it: what comes next is anything
            done.add_done_callback(lambda _: reached(f"write after {name}"))
        return done

    Store.submit = watched  # pyright: ignore[reportAttributeAccessIssue] - of one type for every T


def _named(work: Callable[[Any], Any]) -> str | None:
    """What a write writes: where it was made, of which run, in which state; None for rows of steps and other rooms."""
    where = work.__qualname__.partition(".<locals>")[0]
    if not work.__module__.startswith(ROOMS) or where.startswith("Ledger."):
        return None
    seen = inspect.getclosurevars(work).nonlocals
    run, status = seen.get("run"), seen.get("status") or mapping(seen.get("values")).get("status")
    return " ".join([where, *([] if run is None else [run.name]), *([] if status is None else [str(status)])])


def _calls(reached: Reached) -> None:
    proxied = Proxy.call

    async def call(self: Proxy, call: ToolCall) -> Any:
        arguments: dict[str, Any] = dict(call.params.get("arguments") or {})
        name = " ".join(map(str, (call.name, *arguments.values())))
        reached(f"call before {name}")
        try:
            return await proxied(self, call)
        finally:
            reached(f"call after {name}")

    Proxy.call = call
