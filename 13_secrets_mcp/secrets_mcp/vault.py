"""The spoke's state: every backend, the policy and the records, and the one path to a value."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from fleetkit import FleetError, Setting, correlation, settings
from fleetkit.correlation import Caller, Context
from fleetkit.errors import Invalid, NotFound, OverBudget, Refused
from fleetkit.secrets import LEASE, SecretRef, Use, hide, serving
from fleetkit.store import open_store
from fleetkit.trust import private_dir
from secrets_mcp.backends.environment import Environment
from secrets_mcp.backends.files import Files
from secrets_mcp.backends.keepass import KeePass
from secrets_mcp.backends.port import Backend
from secrets_mcp.options import SecretsOptions
from secrets_mcp.policy import Decision, Policy
from secrets_mcp.records import MIGRATIONS, LeaseRow, Records

SPOKE = "secrets"
MAX_VALUE = 64 * 1024  # characters; a credential is smaller, and everything larger is masked at a cost


@dataclass(frozen=True)
class Target:
    """A reference followed to its store: `stored` never is a lease."""

    stored: SecretRef
    backend: Backend
    field: str
    lease: LeaseRow | None


class Vault:
    """Finds, decides, records, and only then reads a value."""

    def __init__(
        self, backends: dict[str, Backend], options: SecretsOptions, records: Records, service_token: str
    ) -> None:
        self.backends = backends
        self.options = options
        self.policy = Policy(options.policy)
        self.records = records
        self.service_token = service_token

    def backend(self, name: str) -> Backend:
        """A backend by name; raises NotFound naming the others."""
        if name not in self.backends:
            raise NotFound(f"no backend {name}: there are {', '.join(self.backends)}")
        return self.backends[name]

    async def target(self, reference: SecretRef, caller: Caller) -> Target:
        """What `reference` stands for. A lease must be this caller's own; whether it has ended is not asked."""
        lease = None
        if reference.backend == LEASE:
            if reference.field:
                raise Invalid("a lease is for one field: leave #field away, or lease that field")
            lease = await self.records.lease(reference.path, caller)
            reference = SecretRef.parse(lease.reference)
        backend = self.backend(reference.backend)
        return Target(reference, backend, reference.field or backend.default_field, lease)

    async def decide(self, use: Use) -> tuple[Target, Decision]:
        """Whether `use` is allowed now."""
        target = await self.target(use.reference, use.caller)
        state = target.lease.state(self.records.clock()) if target.lease else "active"
        if state != "active":
            return target, Decision(False, None, f"the lease is {state}: leaseSecret gives a new one")
        stored = replace(use, reference=target.stored)
        return target, self.policy.decide(stored, target.field, leased=target.lease is not None)

    async def resolve(self, use: Use) -> str:
        """The value for `use`; every outcome is recorded. Raises Refused with the reason."""
        try:
            target, decision = await self.decide(use)
            if not decision.allowed:
                raise Refused(
                    f"{use.spoke} may not put {target.stored.name} in {use.argument} for {use.destination}: "
                    f"{decision.reason}"
                )
            stored = replace(use, reference=target.stored)
            await self.records.allow(stored, target.lease, decision.rule)
            return await self.read(target)
        except FleetError as error:
            await self.records.note("resolve", use, error.code)
            raise

    async def read(self, target: Target) -> str:
        """The value, masked from now on in this process. The caller has decided and recorded."""
        value = await asyncio.to_thread(target.backend.value, target.stored.path, target.field)
        if len(value) > MAX_VALUE:
            raise OverBudget(f"{target.stored.name} has more than {MAX_VALUE} characters: that is not a credential")
        hide(target.stored, value)
        return value

    def own_use(self, reference: SecretRef, argument: str, destination: str = "") -> Use:
        """A use by this spoke itself, in the call under way."""
        context, caller = asker()
        return Use(reference, caller, SPOKE, context.tool or "", argument, destination or SPOKE, context.correlation_id)


def asker() -> tuple[Context, Caller]:
    """The call under way and who makes it; raises Refused for a call without the hub's signature."""
    context = correlation.current()
    if context is None or context.caller is None:
        raise Refused("nobody is named as the caller: call this tool through the hub")
    return context, context.caller


def build_backends(options: SecretsOptions, data_dir: Path) -> dict[str, Backend]:
    """Every backend under its name, configured or not."""
    own = options.files_paths or [data_dir / "secrets", settings.CHECKOUT / "secrets", Path("/run/secrets")]
    keys = [path for path in (options.keepass_password_file, options.keepass_key_file) if path]
    made: list[Backend] = [
        KeePass(options.keepass_path, options.keepass_password_file, options.keepass_key_file),
        Files(own, keys),
        Environment(options.environment_names, options.environment_prefix),
    ]
    return {backend.name: backend for backend in made}


@asynccontextmanager
async def open_vault(setting: Setting) -> AsyncGenerator[Vault]:
    """The vault of one fleet, open for the length of a block."""
    assert isinstance(setting.options, SecretsOptions)
    private_dir(setting.data_dir / "secrets")
    store = await asyncio.to_thread(open_store, setting.data_dir, "secrets", MIGRATIONS)
    try:
        backends = build_backends(setting.options, setting.data_dir)
        yield Vault(backends, setting.options, Records(store), setting.service_token)
    finally:
        await asyncio.to_thread(store.close)


@asynccontextmanager
async def serve_vault(setting: Setting) -> AsyncGenerator[Vault]:
    """The spoke's state: an open vault that also answers the fleet's embedded spokes."""
    async with open_vault(setting) as vault:
        with serving(setting.data_dir, vault):
            yield vault
