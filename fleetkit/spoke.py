"""A spoke: one tool domain. Declaring one costs nothing; `fleetkit.server` turns it into a server.

    spoke = Spoke("demo")

    @spoke.tool(risk=Risk.read)
    async def free_space(path: Path) -> Usage: ...

The same object runs embedded in the hub, as its own HTTP process, or in a container.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ParamSpec, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError

from fleetkit.errors import Invalid, Unavailable
from fleetkit.risk import Assessment, Risk

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")


class SpokeOptions(BaseModel):
    """Base of a spoke's own options: further keys of its row in fleet.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Setting:
    """What a spoke is started with."""

    data_dir: Path
    options: SpokeOptions
    service_token: str
    hub_url: str
    embedded: bool


@dataclass(frozen=True)
class ToolSpec:
    """One declared tool."""

    function: Callable[..., Any]
    risk: Risk
    assess: Callable[..., Assessment | Awaitable[Assessment]] | None
    deadline_s: float | None
    idempotent: bool
    untrusted: bool
    aliases: tuple[str, ...]
    reveals: str | None = None
    cache_ttl_s: float | None = None
    cache_by_caller: bool = True
    exact: bool = False

    @property
    def name(self) -> str:
        """The Python name, from which the canonical id derives."""
        return self.function.__name__


@dataclass(frozen=True)
class HttpRoute:
    """An HTTP endpoint between processes of the fleet: behind the service token, never shown by the hub.

    An `open` one is reached without the token: its handler checks what the caller presents.
    """

    method: str
    path: str
    handler: Callable[[Mapping[str, Any], Mapping[str, str]], Awaitable[Mapping[str, Any]]]
    open: bool = False


Lifespan = Callable[[Setting], AbstractAsyncContextManager[object]]
Check = Callable[[], Awaitable[None]]


@dataclass
class Spoke:
    """A named set of tools.

    `lifespan` opens what the tools need (a database, a client) and yields it; tools get it by
    `spoke.state(Kind)`. `options` is the model of the spoke's own settings. `tool_modules` are imported
    only when the spoke is served, so that importing the package stays cheap.
    """

    name: str
    instructions: str = ""
    lifespan: Lifespan | None = None
    options: type[SpokeOptions] = SpokeOptions
    tool_modules: tuple[str, ...] = ()
    tools: dict[str, ToolSpec] = field(default_factory=dict[str, ToolSpec], init=False)
    routes: list[HttpRoute] = field(default_factory=list[HttpRoute], init=False)
    checks: dict[str, Check] = field(default_factory=dict[str, Check], init=False)
    _state: object = field(default=None, init=False, repr=False)

    def tool(
        self,
        *,
        risk: Risk,
        assess: Callable[..., Assessment | Awaitable[Assessment]] | None = None,
        deadline_s: float | None = None,
        idempotent: bool = False,
        untrusted: bool = False,
        aliases: tuple[str, ...] = (),
        reveals: str | None = None,
        cache_ttl_s: float | None = None,
        cache_by_caller: bool = True,
        exact: bool = False,
    ) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Declare a tool; its docstring is what the model reads.

        `risk` is the highest the tool can reach. `assess`, called with the same keyword arguments, says
        the risk and plan of one call when that depends on them. `deadline_s` replaces the fleet's
        default. `idempotent` permits a retry. `untrusted` marks results written by outsiders.
        `aliases` are further canonical ids that are accepted on call. `reveals` names the one field of
        the result that may hold a secret value and is not masked. `cache_ttl_s` lets the hub give an
        answer of a read tool again for so many seconds, to the same caller, or to anybody where
        `cache_by_caller` is False. `exact` promises text as it is: control and invisible characters stay
        in it, and the result's meta says so.
        """

        def declare(function: Callable[P, R]) -> Callable[P, R]:
            name = function.__name__
            if name in self.tools:
                raise ValueError(f"{self.name}: tool {name!r} is declared twice")
            if not (function.__doc__ or "").strip():
                raise ValueError(f"{self.name}.{name} has no docstring: it is what the model reads")
            if cache_ttl_s is not None and risk is not Risk.read:
                raise ValueError(f"{self.name}.{name} can change something: its answers are not to be cached")
            self.tools[name] = ToolSpec(
                function,
                risk,
                assess,
                deadline_s,
                idempotent,
                untrusted,
                aliases,
                reveals=reveals,
                cache_ttl_s=cache_ttl_s,
                cache_by_caller=cache_by_caller,
                exact=exact,
            )
            return function

        return declare

    def http(self, method: str, path: str, *, open: bool = False) -> Callable[[S], S]:
        """Declare an endpoint for other processes of the fleet: `async (body, headers) -> mapping`.

        It needs this spoke's service token, which only the hub and the spoke hold; an `open` one is for
        other spokes and its handler must check what they present.
        """

        def declare(handler: S) -> S:
            self.routes.append(HttpRoute(method, path, cast("Any", handler), open))
            return handler

        return declare

    def check(self, name: str) -> Callable[[Check], Check]:
        """Declare a readiness check: it raises a FleetError with the reason when the spoke cannot work."""

        def declare(function: Check) -> Check:
            self.checks[name] = function
            return function

        return declare

    def state(self, kind: type[S]) -> S:
        """What `lifespan` yielded; raises Unavailable while the spoke is not running."""
        if not isinstance(self._state, kind):
            raise Unavailable(f"{self.name} is not running: start it with `fleet up`")
        return self._state

    def set_state(self, state: object) -> None:
        """For `fleetkit.server`: what the lifespan yielded, None when it ended."""
        self._state = state

    def read_options(self, raw: Mapping[str, Any]) -> SpokeOptions:
        """The spoke's options, checked; raises Invalid naming each wrong key."""
        try:
            return self.options.model_validate(dict(raw))
        except ValidationError as error:
            rows = [f"spokes.{self.name}.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
            raise Invalid("configuration: " + "; ".join(rows)) from error

    def main(self) -> None:
        """Serve this spoke as a process of its own on the port of its row."""
        from fleetkit.server import serve

        serve(self)
