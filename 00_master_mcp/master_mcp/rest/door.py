"""The REST door: find the route, check who calls and what was sent, answer."""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import replace
from urllib.parse import parse_qsl

import orjson
from pydantic import BaseModel, ValidationError

from fleetkit import correlation
from fleetkit.asgi import Exchange
from fleetkit.errors import FleetError, Invalid, NotFound, OverBudget, Refused
from fleetkit.log import get_logger
from master_mcp.auth.caller import Caller
from master_mcp.rest.openapi import document
from master_mcp.rest.page import page
from master_mcp.rest.problems import Malformed, SlowBody, TooLarge, WrongKind, WrongMethod, problem
from master_mcp.rest.route import Access, Answer, Reply, Request, Route
from master_mcp.rest.table import Place, Table

log = get_logger()

BODY_WITHIN_S = 30.0
JSON, PAGE = "application/json", "text/html"

Authenticate = Callable[[Exchange], Caller]


class Rest:
    """Serves `routes`, and from them its own description."""

    def __init__(
        self, routes: Iterable[Route], max_request_bytes: int, *, body_within_s: float = BODY_WITHIN_S
    ) -> None:
        own = (
            Route("GET", "/openapi.json", self._openapi, "Describe this gateway as OpenAPI 3.1.", "about", JSON),
            Route("GET", "/docs", self._docs, "Show this gateway to people.", "about", PAGE),
        )
        self.table = Table([*routes, *(replace(route, access=Access.open) for route in own)])
        self._limit = max_request_bytes
        self._body_within_s = body_within_s
        self._document = orjson.dumps(document(self.table.routes))
        self._page = page(self.table.routes).encode()

    async def __call__(self, exchange: Exchange, authenticate: Authenticate) -> None:
        """Answer one request. Raises NotFound for an unknown path, and what `authenticate` raises."""
        place = self.table.find(exchange.path)
        if place is None:
            raise NotFound(f"nothing at {exchange.path}: MCP is at /mcp, the REST endpoints are listed at /docs")
        if exchange.method == "OPTIONS":
            await exchange.raw(200, b"", "", {"allow": place.allow})
            return
        correlation_id = correlation.from_traceparent(exchange.headers.get("traceparent")) or correlation.new_id()
        try:
            route = _method(place, exchange)
            caller = None if route.access is Access.open else _allowed(route, authenticate(exchange))
            await self._answer(route, place, exchange, caller, correlation_id)
        except WrongMethod as error:
            await problem(exchange, error, headers={"allow": place.allow}, correlation_id=correlation_id)
        except FleetError as error:
            await problem(exchange, error, correlation_id=correlation_id)

    async def _answer(
        self, route: Route, place: Place, exchange: Exchange, caller: Caller | None, correlation_id: str
    ) -> None:
        query = _query(route.query, exchange.query) if route.query else None
        body, raw = await self._body(route.body, exchange, route.max_bytes) if route.body else (None, b"")
        request = Request(exchange, place.path, correlation_id, caller, query, body, raw)
        if route.calls or route.streams:
            await exchange.attached(_respond(route, request))
        else:
            await _respond(route, request)

    async def _body(self, kind: type[BaseModel], exchange: Exchange, max_bytes: int | None) -> tuple[BaseModel, bytes]:
        """The body as a model, and as it came."""
        raw = await self._raw(exchange, max_bytes)
        declared = exchange.headers.get("content-type", JSON).partition(";")[0].strip().lower()
        if raw and declared != JSON:
            raise WrongKind(f"the body is declared as {declared}: send JSON as {JSON}")
        try:
            found: object = orjson.loads(raw or b"{}")
        except orjson.JSONDecodeError as error:
            raise Malformed(f"the body is not JSON: {error}") from error
        return _checked(kind, found, "the body"), raw

    async def _raw(self, exchange: Exchange, max_bytes: int | None) -> bytes:
        try:
            async with asyncio.timeout(self._body_within_s):
                return await exchange.body(min(max_bytes or self._limit, self._limit))
        except TimeoutError as error:
            raise SlowBody(f"the body did not come within {self._body_within_s:g} s: send it in one go") from error
        except OverBudget as error:
            raise TooLarge(f"more than {max_bytes} bytes: send less" if max_bytes else error.message) from error

    async def _openapi(self, _request: Request) -> Answer:
        return Reply(self._document)

    async def _docs(self, _request: Request) -> Answer:
        policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
        return Reply(self._page, kind="text/html; charset=utf-8", headers={"content-security-policy": policy})


def _method(place: Place, exchange: Exchange) -> Route:
    method = "GET" if exchange.method == "HEAD" else exchange.method
    if method not in place.methods:
        raise WrongMethod(f"{exchange.method} is not served at {exchange.path}: use {place.allow}")
    return place.methods[method]


def _allowed(route: Route, caller: Caller) -> Caller:
    if route.access is Access.manager and not caller.manages:
        raise Refused(f"key {caller.name!r} may not use {route.method} {route.path}: use an operator key")
    return caller


async def _respond(route: Route, request: Request) -> None:
    """Run the handler and send what it answers. Its own faults are problems too, without their details."""
    exchange = request.exchange
    try:
        answer = await route.handler(request)
    except FleetError as error:
        await problem(exchange, error, correlation_id=request.correlation_id)
        return
    except Exception:
        log.exception("rest.handler.failed", route=route.path, correlation_id=request.correlation_id)
        fault = FleetError(f"the hub failed: look for {request.correlation_id} in `fleet logs`")
        await problem(exchange, fault, correlation_id=request.correlation_id)
        return
    reply = answer if isinstance(answer, Reply) else Reply(answer)
    headers = {"cache-control": "no-store", **reply.headers}
    status = reply.status or route.status
    if isinstance(reply.content, BaseModel):
        await exchange.raw(status, reply.content.model_dump_json().encode(), reply.kind, headers)
    elif isinstance(reply.content, bytes):
        await exchange.raw(status, reply.content, reply.kind, headers)
    else:
        await exchange.chunks(status, reply.content, reply.kind, headers)


def _query(kind: type[BaseModel], text: str) -> BaseModel:
    given: dict[str, str] = {}
    for name, value in parse_qsl(text, keep_blank_values=True):
        if name in given:
            raise Invalid(f"the query parameter {name!r} came more than once: give it once")
        given[name] = value
    return _checked(kind, given, "the query")


def _checked(kind: type[BaseModel], found: object, what: str) -> BaseModel:
    try:
        return kind.model_validate(found)
    except ValidationError as error:
        raise Invalid(f"{what} is wrong: {explain(error)}") from error


def explain(error: ValidationError) -> str:
    """Each wrong key and why, never the value."""
    rows = [(".".join(map(str, item["loc"])), item["msg"]) for item in error.errors(include_url=False)]
    return "; ".join(f"{place}: {reason}" if place else reason for place, reason in rows[:5])
