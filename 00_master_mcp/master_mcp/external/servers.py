"""The external servers of one hub: started from their rows, reloaded when a row or a pin changes, ended with it."""

import asyncio
import os
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from fleetkit import settings, trust
from fleetkit.errors import FleetError, NotFound
from fleetkit.external import ExternalRow
from fleetkit.log import get_logger
from fleetkit.metrics import Metrics
from fleetkit.settings import FleetSettings, SpokeRow
from fleetkit.store import Store
from master_mcp.catalog.tools import Catalog
from master_mcp.catalog.watcher import Watcher
from master_mcp.external.conversations import Conversations
from master_mcp.external.credentials import Credentials
from master_mcp.external.gate import Gate
from master_mcp.external.process import Launcher
from master_mcp.external.records import Record, Records
from master_mcp.external.session import Session
from master_mcp.external.transport import ExternalTransport, HttpTransport, SessionTransport
from master_mcp.external.upstream import ExternalUpstream
from master_mcp.external.wire import Wire
from master_mcp.proxy.upstream import Upstream
from master_mcp.resilience.breakers import Breakers
from master_mcp.status import Fleet, Member

log = get_logger()

POLL_S = 0.5
NO_NUMBER = 99  # rows of spokes have one; nothing derives from it here


@dataclass
class _Running:
    """One server that is up."""

    row: ExternalRow
    gate: Gate
    member: Member
    watcher: Watcher
    transport: ExternalTransport
    stack: AsyncExitStack
    approved_at: float | None
    reloads: int


class Servers:
    """Keeps `fleet.members`, `upstreams` and the catalog in step with the rows of `external:`."""

    def __init__(
        self,
        config: FleetSettings,
        fleet: Fleet,
        catalog: Catalog,
        store: Store,
        metrics: Metrics,
        ring: trust.KeyRing,
        upstreams: MutableMapping[str, Upstream],
        breakers: Breakers,
    ) -> None:
        self._config = config
        self._fleet = fleet
        self._catalog = catalog
        self._store = store
        self._metrics = metrics
        self._ring = ring
        self._upstreams = upstreams
        self._breakers = breakers
        self._records = Records(store)
        self._credentials = Credentials(config.data_dir, ring, self._secrets_url)
        self._running: dict[str, _Running] = {}
        self._rows: Mapping[str, ExternalRow] = config.external
        self._files: object = self._fingerprint()
        self._version: object = None
        self._busy = asyncio.Lock()

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None]:
        """The servers of the rows, started, and looked after for the length of a block."""
        await self.refresh()
        async with asyncio.TaskGroup() as tasks:
            polling = tasks.create_task(self._poll())
            try:
                yield
            finally:
                polling.cancel()
                await asyncio.gather(*(self._stop(name) for name in list(self._running)))

    async def reload(self, name: str) -> None:
        """Start a server anew: its processes and sessions, its credentials. Raises NotFound for an unknown name."""
        async with self._busy:
            if name not in self._running:
                raise NotFound(f"no external server {name!r} runs here: `fleet servers list` names them")
            await self._restart(name, self._rows[name], await self._record(name))

    async def refresh(self) -> None:
        """Take what changed in the files and in the table of pins."""
        async with self._busy:
            self._reread()
            version = await asyncio.to_thread(self._records.version)
            records = {} if version == self._version else await asyncio.to_thread(self._records.all)
            wanted = {name: row for name, row in self._rows.items() if row.enabled}
            for name in [name for name in self._running if name not in wanted]:
                await self._stop(name)
            for name, row in wanted.items():
                await self._keep(name, row, records.get(name, Record(name)) if version != self._version else None)
            self._version = version
            for server in self._running.values():
                server.transport.sweep()
                server.member.problem = server.gate.summary()

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_S)
            try:
                await self.refresh()
            except FleetError as error:  # the database is out of reach: what runs goes on
                log.warning("external.refresh.failed", reason=error.message)

    async def _keep(self, name: str, row: ExternalRow, record: Record | None) -> None:
        """Have one server run as its row and its record (None: unchanged) say."""
        server = self._running.get(name)
        if server is None or server.row != row:
            await self._restart(name, row, record or await self._record(name))
        elif record is not None and record.reloads != server.reloads:
            await self._restart(name, row, record)
        elif record is not None and record.approved_at != server.approved_at:
            server.gate.approve(record.approved)
            server.approved_at = record.approved_at
            self._catalog.withhold(name, server.gate.withheld())
            await server.watcher.take(server.gate.admitted())  # at once: what was seen last is what was approved
            server.watcher.relist()

    async def _record(self, name: str) -> Record:
        return await asyncio.to_thread(self._records.get, name)

    async def _restart(self, name: str, row: ExternalRow, record: Record) -> None:
        await self._stop(name)
        await self._start(name, row, record)

    async def _start(self, name: str, row: ExternalRow, record: Record) -> None:
        gate = Gate(name, row, lambda spelling: self._catalog.taken(spelling, name))
        gate.approve(record.approved)
        async with AsyncExitStack() as stack:
            transport = await self._transport(name, row, gate, stack)
            upstream = ExternalUpstream(
                name,
                SpokeRow(number=NO_NUMBER, namespace=name, url=row.url),
                transport,
                self._ring.service_token(name),  # signs what is taken off again before anything is sent
                self._breakers.spoke(name),
                gate=gate,
                external=transport,
                records=self._records,
                catalog=self._catalog,
            )
            watcher = Watcher(upstream, self._catalog, self._store, self._metrics)
            if record.approved is not None:
                await watcher.load()
            member = Member(name, name, 0, embedded=False, url=row.url, upstream=upstream, watcher=watcher)
            watching = asyncio.create_task(watcher.run())
            watching.add_done_callback(lambda task: _report(name, member, task))
            stack.push_async_callback(_cancel, watching)
            kept = stack.pop_all()
        self._running[name] = _Running(
            row, gate, member, watcher, transport, kept, record.approved_at, record.reloads
        )  # fmt: skip
        self._fleet.members[name] = member
        self._upstreams[name] = upstream

    async def _stop(self, name: str) -> None:
        server = self._running.pop(name, None)
        if server is None:
            return
        self._fleet.members.pop(name, None)
        self._upstreams.pop(name, None)
        self._catalog.withhold(name, {})
        self._catalog.replace(name, ())
        self._catalog.offers.forget(name)
        await server.stack.aclose()
        log.info("external.stopped", server=name)

    async def _transport(self, name: str, row: ExternalRow, gate: Gate, stack: AsyncExitStack) -> ExternalTransport:
        limit = self._config.hub.max_answer_bytes
        if row.transport == "stdio":
            transport = SessionTransport(
                name, Conversations(name, row, self._started(name, row, limit, stack), gate), limit
            )
        else:
            transport = await self._http(name, row, gate, limit, stack)
        stack.push_async_callback(transport.close)
        return transport

    def _started(
        self, name: str, row: ExternalRow, limit: int, stack: AsyncExitStack
    ) -> Callable[[Session], Awaitable[Wire]]:
        launcher = Launcher(name, row, self._config.data_dir, limit)
        stack.callback(launcher.close)

        async def dial(session: Session) -> Wire:
            env = await self._credentials.fill(name, "env", row.env, name)
            return await launcher.start(env, session.deliver, session.fail)

        return dial

    async def _http(
        self, name: str, row: ExternalRow, gate: Gate, limit: int, stack: AsyncExitStack
    ) -> ExternalTransport:
        from master_mcp.external.http import Endpoint, HttpWire, open_pool

        url = row.url or ""
        where = urlsplit(url)
        endpoint = Endpoint(name, url, await stack.enter_async_context(open_pool()), limit)

        async def fill() -> None:
            if not endpoint.headers:
                origin = f"{where.scheme}://{where.netloc}"
                endpoint.headers = await self._credentials.fill(name, "header", row.headers, origin)

        async def dial(session: Session) -> Wire:
            await fill()
            return HttpWire(endpoint, session.deliver, session.fail)

        legacy = row.model_copy(update={"era": "legacy"})  # which era it is, the transport has found out already
        sessions = SessionTransport(name, Conversations(name, legacy, dial, gate), limit)
        return HttpTransport(endpoint, gate, sessions, row.era, fill)

    def _secrets_url(self) -> str | None:
        member = self._fleet.members.get("secrets")
        return member.url if member is not None else None

    def _reread(self) -> None:
        """Take the rows of the files when one changed; a file that is wrong leaves the old rows in force."""
        files = self._fingerprint()
        if files == self._files:
            return
        self._files = files
        try:
            self._rows = settings.load(self._config.data_dir).external
        except FleetError as error:
            log.error("external.rows.invalid", reason=error.message)

    def _fingerprint(self) -> object:
        folder = self._config.data_dir
        found = (folder / "fleet.yaml", *sorted((folder / "external").glob("*.yaml")))
        return [(path.name, stat.st_mtime_ns, stat.st_size, stat.st_ino) for path in found if (stat := _stat(path))]


def _stat(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None


def _report(name: str, member: Member, task: "asyncio.Task[None]") -> None:
    if not task.cancelled() and (problem := task.exception()) is not None:
        member.problem = f"the hub stopped watching it ({type(problem).__name__}): `fleet servers reload {name}`"
        log.error("external.watcher.failed", server=name, reason=str(problem))


async def _cancel(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
