"""The durable engine on DBOS: SQLite by default, PostgreSQL by URL.

What this module knows of DBOS beyond its documentation, each with a test that fails when it changes: values are
JSON, and a stored row that claims to be a pickle is refused; workflows run on the hub's own event loop; the queue on
which executions are resumed is looked at every `poll_s` while one waits there, and seldom else; the sweep for delays
and deadlines, which nothing here has, is made seldom. Each start of the process is an executor of its own, so
that DBOS resumes nothing by itself: the hub knows which of its runs have to go on.
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextvars import Context
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, SetWorkflowID
from dbos import _serialization as formats  # pyright: ignore[reportPrivateUsage] - where pickles are read
from dbos import _workflow_commands as sweeps  # pyright: ignore[reportPrivateUsage] - how often is no setting
from dbos._core import WorkflowHandleAsyncTask  # these two are the types of public functions' results
from dbos._dbos import StepReservation
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from fleetkit import engines
from fleetkit.errors import Unavailable
from fleetkit.log import get_logger
from master_mcp.workflows.engine import Body, Interrupted, Json, Work

log = get_logger()

APP = "fleet"
INTERPRETER = "1"  # grows only with an interpreter that cannot replay the journals of the one before
THREADS = 64
_UNFINISHED = {"PENDING", "ENQUEUED", "DELAYED"}
SELDOM = 5  # times `poll_s`: a look each second costs 0.3 % of a core
SWEEP_S = 30.0  # instead of 1 s, for the same reason
PATIENCE_S = 5.0  # for executions to end when the hub stops


class DbosEngine:
    """See `DurableEngine`. There is one in a process: DBOS is a singleton."""

    current: "DbosEngine | None" = None

    def __init__(self, body: Body, dbos: DBOS, database: sa.Engine, poll_s: float) -> None:
        self._body = body
        self._queue = dbos._registry.get_internal_queue()  # pyright: ignore[reportPrivateUsage] - it takes no setting
        self._database = database
        self._poll_s = poll_s
        self._live: dict[str, asyncio.Task[None] | None] = {}
        self._resumed: set[str] = set()  # what stands in the queue
        self._look_every(poll_s)

    @classmethod
    async def launch(cls, body: Body, url: sa.URL, poll_s: float = 1.0) -> "DbosEngine":
        """An engine whose journals lie in that database. Raises Unavailable when it cannot be used."""
        if cls.current is not None:
            raise Unavailable("this process runs a workflow engine already: one hub per process")
        database = _sqlite(url) if url.get_backend_name() == "sqlite" else engines.engine_for(url)
        _hear_dbos()
        _refuse_pickles()
        dbos = DBOS(config=_config(database, url, poll_s))
        dbos._background_event_loop.set_main_loop()  # pyright: ignore[reportPrivateUsage] - launch() runs in a thread, which has no loop
        _ = sweeps._BACKGROUND_JOBS_INTERVAL_SEC  # pyright: ignore[reportPrivateUsage] - raises when it has moved
        sweeps._BACKGROUND_JOBS_INTERVAL_SEC = SWEEP_S  # pyright: ignore[reportPrivateUsage]
        engine = cls.current = cls(body, dbos, database, poll_s)
        launching = asyncio.create_task(asyncio.to_thread(DBOS.launch))
        try:
            await asyncio.shield(launching)
        except asyncio.CancelledError:  # the hub stops: the thread goes on all the same, and then there is an engine
            await asyncio.wait([launching])
            await engine.close()
            raise
        except SQLAlchemyError as error:
            await engine.close()
            raise engines.unavailable(database, error) from error
        return engine

    async def ensure(self, execution_id: str) -> None:
        """See `DurableEngine`."""
        if execution_id in self._live:
            return
        self._live[execution_id] = None
        try:  # in a context of its own: to DBOS a step that begins another run would be calling a part of itself
            begun = await asyncio.create_task(self._begin(execution_id), context=Context())
        except SQLAlchemyError as error:
            self._live.pop(execution_id, None)
            raise engines.unavailable(self._database, error) from error
        except BaseException:
            self._live.pop(execution_id, None)
            raise
        if not begun:
            self._live.pop(execution_id, None)

    async def cancel(self, execution_id: str) -> None:
        """See `DurableEngine`."""
        await DBOS.cancel_workflow_async(execution_id)
        task = self._live.pop(execution_id, None)
        if task is not None:
            task.cancel()
            await asyncio.wait([task], timeout=PATIENCE_S)  # what it still writes comes before what its caller writes

    async def forget(self, execution_ids: Sequence[str]) -> None:
        """See `DurableEngine`."""
        await DBOS.delete_workflows_async(list(execution_ids))

    def under_way(self) -> set[str]:
        """See `DurableEngine`."""
        return set(self._live)

    async def close(self) -> None:
        """See `DurableEngine`."""
        tasks = [task for task in self._live.values() if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=PATIENCE_S)
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor())  # DBOS's own, which it had set, ends now
        await asyncio.to_thread(DBOS.destroy)
        DbosEngine.current = None

    async def run(self, execution_id: str) -> None:
        """One execution, in the task that DBOS gave it."""
        task = asyncio.current_task()
        assert task is not None
        self._live[execution_id] = task
        self._resumed.discard(execution_id)
        if not self._resumed:
            self._look_every(self._poll_s * SELDOM)
        try:
            await self._body(execution_id, _Journal())
        except Interrupted:
            raise asyncio.CancelledError from None  # the one end of which DBOS records nothing
        except Exception as error:
            # boundary: the engine's own database failed; a run has its outcome in its row, never here
            log.error("workflow.interrupted", execution=execution_id, error=type(error).__name__, reason=str(error))
            raise asyncio.CancelledError from error
        finally:
            if self._live.get(execution_id) is task:
                del self._live[execution_id]

    async def _begin(self, execution_id: str) -> bool:
        """Have DBOS run an execution; False when it has ended."""
        with SetWorkflowID(execution_id):
            handle = await DBOS.start_workflow_async(_execution, execution_id)
        if isinstance(handle, WorkflowHandleAsyncTask):
            return True
        if (await handle.get_status()).status not in _UNFINISHED:
            return False
        self._resumed.add(execution_id)  # begun before: DBOS runs it only when told to
        self._look_every(self._poll_s)
        await DBOS.resume_workflow_async(execution_id)
        return True

    def _look_every(self, seconds: float) -> None:
        self._queue._polling_interval_sec = seconds  # pyright: ignore[reportPrivateUsage] - it takes no setting


@DBOS.workflow(name=f"{APP}.run", max_recovery_attempts=None)
async def _execution(execution_id: str) -> None:
    assert DbosEngine.current is not None
    await DbosEngine.current.run(execution_id)


class _Journal:
    """See `Journal`."""

    def step(self, name: str, work: Work) -> Awaitable[Json]:
        return _Place(DBOS.reserve_step(), name, work)

    async def first_of(self, tasks: Sequence[asyncio.Task[Json]]) -> list[asyncio.Task[Json]]:
        if len(tasks) == 1:  # nothing to decide, nothing to record
            await asyncio.wait(tasks)
            return list(tasks)
        done, _ = await DBOS.asyncio_wait(list(tasks), return_when=asyncio.FIRST_COMPLETED)
        return [task for task in tasks if task in done]


class _Place:
    """A place in the journal; one that nobody awaits stays empty."""

    def __init__(self, reserved: StepReservation, name: str, work: Work) -> None:
        self._reserved = reserved
        self._name = name
        self._work = work

    def __await__(self) -> Generator[Any, None, Json]:
        return self._reserved.run_async({"name": self._name}, self._step).__await__()

    async def _step(self) -> Json:
        return await self._work()


def _sqlite(url: sa.URL) -> sa.Engine:
    """As DBOS opens it, which says BEGIN in its own way, with the journal that makes a step 5 times as quick."""
    file = Path(str(url.database))
    file.touch(mode=0o600)
    file.chmod(0o600)
    database = sa.create_engine(url)

    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = "IMMEDIATE"
        for pragma in ("journal_mode=WAL", "synchronous=NORMAL", "foreign_keys=ON", "busy_timeout=30000"):
            connection.execute(f"PRAGMA {pragma}").close()

    event.listen(database, "connect", prepare)
    return database


def _config(database: sa.Engine, url: sa.URL, poll_s: float) -> DBOSConfig:
    return {
        "name": APP,
        "system_database_url": url.render_as_string(hide_password=False),
        "system_database_engine": database,
        "application_version": INTERPRETER,
        "executor_id": f"hub-{secrets.token_hex(8)}",
        "serializer": formats.DBOSPortableJSON,
        "log_level": "WARNING",
        "max_executor_threads": THREADS,
        "notification_listener_polling_interval_sec": poll_s,
        "scheduler_polling_interval_sec": 3600.0,
    }


def _refuse_pickles() -> None:
    """A pickle is a program. Raises AttributeError when DBOS reads them elsewhere than it did."""
    kept: Any = formats.DefaultSerializer
    _ = (kept.deserialize, formats.DBOSDefaultSerializer)
    kept.deserialize = _refuse


def _refuse(_self: object, _text: str) -> None:
    raise ValueError("a row of the workflow database is marked as a pickle: somebody else wrote it, it is not read")


_USUAL = (  # what DBOS warns of and happens all the time: a run or a wait ended, a run gone on with
    "Asyncio task cancelled",
    "Workflow already exists in queue",
)


class _Heard(logging.Handler):
    """What DBOS has to say, in the hub's own log."""

    def emit(self, record: logging.LogRecord) -> None:
        said = record.getMessage().splitlines()[0][:500]
        if not said.startswith(_USUAL):
            log.warning("workflow.engine", said=said)


def _hear_dbos() -> None:
    logger = logging.getLogger("dbos")
    logger.propagate = False
    if not any(isinstance(handler, _Heard) for handler in logger.handlers):
        logger.handlers = [_Heard(logging.WARNING)]
