"""The workflows of one hub, put together."""

import asyncio
from importlib import import_module

import sqlalchemy as sa

from fleetkit.errors import Refused
from fleetkit.metrics import Metrics
from fleetkit.settings import FleetSettings
from fleetkit.store import Store
from master_mcp.approvals.record import Approval
from master_mcp.approvals.room import Approvals
from master_mcp.audit import Audit
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import Catalog
from master_mcp.policy.engine import Policy
from master_mcp.proxy.request import Assess
from master_mcp.proxy.request import Run as CallTool
from master_mcp.workflows.bell import Bell
from master_mcp.workflows.checking import Checker
from master_mcp.workflows.engine import Body, DurableEngine
from master_mcp.workflows.executing import Executor, Launch
from master_mcp.workflows.expressions import Templates
from master_mcp.workflows.hooks import Hooks
from master_mcp.workflows.library import Library
from master_mcp.workflows.looking import Looking
from master_mcp.workflows.notes import Notes
from master_mcp.workflows.places import Places
from master_mcp.workflows.planning import Planner
from master_mcp.workflows.results import Artifacts
from master_mcp.workflows.retention import Retention
from master_mcp.workflows.rooms import Rooms
from master_mcp.workflows.shelf import Shelf
from master_mcp.workflows.starting import Starting
from master_mcp.workflows.steering import Steering
from master_mcp.workflows.triggers import Triggers

ENGINE = "master_mcp.workflows.engine.dbos"  # takes a second to load, and many fleets never need it


class Workflows:
    """Definitions on the `shelf`, runs `starting`, `looking` at them and `steering` them; `hooks` start some, too."""

    def __init__(
        self,
        config: FleetSettings,
        store: Store,
        catalog: Catalog,
        policy: Policy,
        approvals: Approvals,
        audit: Audit,
        metrics: Metrics,
    ) -> None:
        import_module("sqlalchemy.orm")  # the engine's thread would load it while queries of other threads look into it
        self._approvals = approvals
        self._catalog = catalog
        self._lane = config.hub.workflows.lane
        self._lanes: dict[str, Places] = {}
        self._bell = Bell()
        self._templates = Templates()
        self._artifacts = Artifacts(store)
        notes, library = Notes(audit), Library(store, config.data_dir)
        checker = Checker(catalog, policy, self._templates, library)
        self.executor = Executor(store, notes, metrics, config.hub.workflows, launcher(config))
        self.shelf = Shelf(library, checker, notes, self._bell)
        self.looking = Looking(store, self._bell, self._artifacts, self.executor.is_new)
        self._planner = Planner(catalog, policy, self._templates, library, checker)
        self.starting = Starting(store, library, checker, self._planner, approvals, self.executor)
        self.steering = Steering(
            store, self.looking, self.starting, checker, self.executor, approvals, notes, self._bell
        )
        self._triggers = Triggers(store, self.shelf, self.starting, notes, self._live)
        self._retention = Retention(store, self.executor, config.hub.workflows.keep_s)
        self.hooks = Hooks(library, self._templates, self.starting, self._live, config.data_dir)
        approvals.on_event(self._heard)

    async def run(self, call: CallTool, assess: Assess) -> None:
        """Bring every run to its end, for ever: steps are made by `call`, `assess` says what one would risk."""
        self._planner.assess = assess
        self.executor.rooms = Rooms(
            catalog=self._catalog,
            call=call,
            assess=assess,
            caller_of=self._live,
            asking=self._approvals.asking,
            templates=self._templates,
            artifacts=self._artifacts,
            bell=self._bell,
            lane=self._lane_of,
            child=self.starting.child,
            look=self.looking.look,
            steps=self.looking.steps,
            stop=self.steering.stop,
        )
        try:
            async with asyncio.TaskGroup() as tasks:
                for watch in (self.executor.watch, self._triggers.watch, self._retention.watch):
                    tasks.create_task(watch())
        finally:
            await self.executor.close()
            await self._templates.close()

    def caller(self, key_id: str) -> Caller:
        """The live caller of a key's id; raises Refused when there is none."""
        return self._approvals.caller(key_id)

    def _live(self, key_id: str) -> Caller | None:
        try:
            return self.caller(key_id)
        except Refused:
            return None

    def _lane_of(self, service: str) -> Places:
        return self._lanes.setdefault(service, Places(self._lane))

    def _heard(self, approval: Approval) -> None:
        self._bell.ring(f"approval:{approval.id}")


def launcher(config: FleetSettings) -> Launch:
    """How the engine is launched when it is first needed."""

    async def launch(body: Body) -> DurableEngine:
        module = await asyncio.to_thread(import_module, ENGINE)
        return await module.DbosEngine.launch(body, journal_url(config), config.hub.workflows.poll_s)

    return launch


def journal_url(config: FleetSettings) -> sa.URL:
    """Where the journals of runs lie: beside the hub's SQLite file, in its PostgreSQL, or where the settings say."""
    said = config.hub.workflows.database_url or config.hub.database_url
    if said is not None and sa.make_url(said).get_backend_name() == "postgresql":
        return sa.make_url(said)
    return sa.make_url(f"sqlite:///{config.data_dir / 'workflows.db'}")
