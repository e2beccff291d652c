"""A spoke: one tool domain. Declaring one costs nothing; `fleetkit.server` turns it into a server.

    spoke = Spoke("demo")

    @spoke.tool(risk=Risk.read)
    async def free_space(path: Path) -> Usage: ...

    @spoke.resource("disk/{name}")  # demo://disk/sda
    async def disk(name: str) -> Disk: ...

    @spoke.prompt()
    async def clean_up(path: str) -> str: ...

The same object runs embedded in the hub, as its own HTTP process, or in a container.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
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
    """One declared tool. `schema` describes the arguments of a function that takes any by keyword."""

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
    schema: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """The Python name, from which the canonical id derives."""
        return self.function.__name__


@dataclass(frozen=True)
class ResourceSpec:
    """One declared resource, or a template of them when its path holds `{names}`."""

    function: Callable[..., Any]
    path: str
    mime_type: str

    @property
    def name(self) -> str:
        """The Python name, which people read."""
        return self.function.__name__

    @property
    def is_template(self) -> bool:
        """Whether the path has parts to fill in."""
        return "{" in self.path


@dataclass(frozen=True)
class PromptSpec:
    """One declared prompt."""

    function: Callable[..., Any]

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
Completer = Callable[[str, Mapping[str, str]], Awaitable[Sequence[str]]]  # what was typed, the other arguments so far
Tell = Callable[[str], Awaitable[None]]


@dataclass
class Spoke:
    """A named set of tools, with the resources and prompts that go with them.

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
    resources: list[ResourceSpec] = field(default_factory=list[ResourceSpec], init=False)
    prompts: dict[str, PromptSpec] = field(default_factory=dict[str, PromptSpec], init=False)
    completers: dict[str, Completer] = field(default_factory=dict[str, Completer], init=False)
    routes: list[HttpRoute] = field(default_factory=list[HttpRoute], init=False)
    checks: dict[str, Check] = field(default_factory=dict[str, Check], init=False)
    _state: object = field(default=None, init=False, repr=False)
    _tell: Tell | None = field(default=None, init=False, repr=False)

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
            name = self._documented(function)
            if name in self.tools:
                raise ValueError(f"{self.name}: tool {name!r} is declared twice")
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

    def resource(self, path: str, *, mime_type: str = "application/json") -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Declare something to read at `<namespace>://<path>`; its docstring says what it is.

        `{names}` in the path make it a template: each is an argument of the function and stands for one
        segment of the URI. It returns a model or JSON data, or text or bytes as they are.
        """

        def declare(function: Callable[P, R]) -> Callable[P, R]:
            self._documented(function)
            if any(known.path == path for known in self.resources):
                raise ValueError(f"{self.name}: resource {path!r} is declared twice")
            self.resources.append(ResourceSpec(function, path, mime_type))
            return function

        return declare

    def prompt(self) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Declare a prompt: the function's text arguments are filled in by a person, its result is what to ask a model.

        It returns the text of one message of the user, or a list of texts.
        """

        def declare(function: Callable[P, R]) -> Callable[P, R]:
            name = self._documented(function)
            if name in self.prompts:
                raise ValueError(f"{self.name}: prompt {name!r} is declared twice")
            self.prompts[name] = PromptSpec(function)
            return function

        return declare

    def completion(self, argument: str) -> Callable[[Completer], Completer]:
        """Declare who completes an argument of that name, in every prompt and template of the spoke.

        The function gets what was typed and the other arguments so far, and returns the values that fit.
        """

        def declare(function: Completer) -> Completer:
            self.completers[argument] = function
            return function

        return declare

    async def updated(self, path: str) -> None:
        """Tell whoever watches the resource at `<namespace>://<path>` that it is another one now."""
        if self._tell is not None:
            await self._tell(path)

    def _documented(self, function: Callable[..., Any]) -> str:
        if not (function.__doc__ or "").strip():
            raise ValueError(f"{self.name}.{function.__name__} has no docstring: it is what the model reads")
        return function.__name__

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

    def set_tell(self, tell: Tell | None) -> None:
        """For `fleetkit.server`: how `updated` reaches those who watch, None when nobody is served."""
        self._tell = tell

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
