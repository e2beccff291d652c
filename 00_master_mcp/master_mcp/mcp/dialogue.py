"""The session protocol itself, up to 2025-11-25, whatever carries it: requests answered, questions put, news kept.

A spoke that asks for input answers `input_required`; here that becomes a request to the client, and its
answer a second call.
"""

import asyncio
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from mcp_types import CLIENT_CAPABILITIES_META_KEY, CLIENT_INFO_META_KEY, LOG_LEVEL_META_KEY
from mcp_types.version import HANDSHAKE_PROTOCOL_VERSIONS, LATEST_HANDSHAKE_VERSION

from fleetkit import correlation
from fleetkit.errors import FleetError, Invalid, OverBudget, Refused, TimedOut
from fleetkit.shapes import mapping
from master_mcp.auth.caller import Caller
from master_mcp.auth.session import Session
from master_mcp.catalog.news import MAX_WATCHED, News
from master_mcp.mcp import rpc
from master_mcp.mcp.live import Live
from master_mcp.mcp.methods import CAPABILITIES, FORWARDED, Methods, Request, failed
from master_mcp.mcp.rpc import Message
from master_mcp.proxy.upstream import Notify

MAX_ROUNDS = 16
ANSWER_WITHIN_S = 600.0
LOG_LEVELS = ("debug", "info", "notice", "warning", "error", "critical", "alert", "emergency")


@dataclass(frozen=True)
class Party:
    """A client in its session: who it is, what it agreed on, what is under way, how it is told something."""

    caller: Caller
    session: Session
    live: Live
    say: Notify
    fresh: bool = False


class Dialogue:
    """Answers the messages of one session after another."""

    def __init__(self, methods: Methods, news: News) -> None:
        self._methods = methods
        self._news = news
        self._ids = itertools.count(1)

    async def answer(self, party: Party, message: Message) -> Message:
        """The answer to a request."""
        try:
            if message["method"] in FORWARDED:
                return await self._forward(party, message)
            if message["method"] == "resources/subscribe":
                await self._subscribe(party, str(mapping(message.get("params")).get("uri")))
                return rpc.result(message["id"], {})
            return rpc.result(message["id"], self._at_once(party, message))
        except _NoSuchMethod:
            text = f"method {message['method']!r} is not served here"
            return rpc.error(message["id"], rpc.METHOD_NOT_FOUND, text)
        except FleetError as problem:
            uri = mapping(message.get("params")).get("uri")
            return rpc.failed_ask(message["id"], problem, correlation.new_id(), rpc.RESOURCE_NOT_FOUND, uri)

    def take(self, live: Live, message: Message) -> None:
        """A notification of the client, or its answer to a question."""
        if "method" not in message:
            future = live.questions.get(str(message.get("id")))
            if future is not None and not future.done():
                future.set_result(message)
        elif message["method"] == "notifications/cancelled":
            task = live.calls.get(mapping(message.get("params")).get("requestId"))
            if task is not None:
                task.cancel()

    def _at_once(self, party: Party, message: Message) -> Mapping[str, Any]:
        params = mapping(message.get("params"))
        match message["method"]:
            case "ping":
                return {}
            case "logging/setLevel":
                return _set_level(party.live, params.get("level"))
            case "resources/unsubscribe":
                self._news.unwatch(party.live.listener, str(params.get("uri")))
                return {}
            case method:
                listed = self._methods.listed(party.caller, method, params)
                if listed is None:
                    raise _NoSuchMethod
                return listed

    async def _subscribe(self, party: Party, uri: str) -> None:
        if len(party.live.listener.watched) >= MAX_WATCHED:
            raise OverBudget(f"a session may watch {MAX_WATCHED} resources: unsubscribe from one")
        self._news.watch(party.live.listener, uri, self._methods.reader.watchable(party.caller, uri))
        await self._news.settled(party.live.listener)

    async def _forward(self, party: Party, message: Message) -> Message:
        correlation_id = correlation.new_id()
        params = {**mapping(message.get("params")), "_meta": _meta_for(party, message)}
        request = Request({**message, "params": params}, party.caller, party.say, correlation_id, fresh=party.fresh)
        try:
            answer = {**await self._rounds(party, request), "id": message["id"]}
            return rpc.stamped(answer, correlation_id, modern=False)
        except FleetError as problem:
            return failed(request, problem, correlation_id, rpc.RESOURCE_NOT_FOUND)

    async def _rounds(self, party: Party, request: Request) -> Message:
        """Ask the spoke until it has all it needs to know; each round is a request with an id of its own."""
        for _ in range(MAX_ROUNDS):
            answer = await self._methods.forward(request)
            content = mapping(answer.get("result"))
            if content.get("resultType") != "input_required":
                return answer
            answers = await self._ask(party, mapping(content.get("inputRequests")))
            more = {"inputResponses": answers, "requestState": content.get("requestState")}
            params = {**request.params, **more}
            params = {name: value for name, value in params.items() if value is not None}
            request = replace(request, message={**request.message, "id": f"fleet-{next(self._ids)}", "params": params})
        raise Refused(f"{request.params.get('name')} asked for input {MAX_ROUNDS} times: given up")

    async def _ask(self, party: Party, requests: Mapping[str, Any]) -> dict[str, Any]:
        """Put a spoke's questions to the client and wait for the answers."""
        waiting: dict[str, asyncio.Future[Message]] = {}
        questions = party.live.questions
        try:
            for name, request in requests.items():
                _require_capability(party.session, str(request.get("method")))
                question_id = f"fleet-{next(self._ids)}"
                waiting[name] = questions[question_id] = asyncio.get_running_loop().create_future()
                await party.say({"jsonrpc": "2.0", "id": question_id, **_as_asked(request, question_id)})
            async with asyncio.timeout(ANSWER_WITHIN_S):
                return {name: _answer_of(await future) for name, future in waiting.items()}
        except TimeoutError as error:
            raise TimedOut(f"nobody answered the question within {ANSWER_WITHIN_S:g} s: call again") from error
        finally:
            for question_id in [q for q, future in questions.items() if future in waiting.values()]:
                del questions[question_id]


class _NoSuchMethod(Exception):
    """No error of the caller's call: the protocol has a code of its own for it."""


def agreement(params: Mapping[str, Any]) -> tuple[str, dict[str, Any], dict[str, str]]:
    """What `initialize` agrees on: the version, which questions the client can answer, what it calls itself."""
    asked = params.get("protocolVersion")
    version = str(asked) if asked in HANDSHAKE_PROTOCOL_VERSIONS else LATEST_HANDSHAKE_VERSION
    capabilities, client = mapping(params.get("capabilities")), mapping(params.get("clientInfo"))
    answerable = {name: capabilities[name] for name in _CAPABILITY.values() if name in capabilities}
    return version, answerable, {name: str(client.get(name, ""))[:64] for name in ("name", "version")}


def welcome(version: str) -> dict[str, Any]:
    """The result of `initialize`."""
    return {
        "protocolVersion": version,
        "capabilities": CAPABILITIES | {"logging": {}},
        "serverInfo": rpc.SERVER_INFO,
        "instructions": rpc.INSTRUCTIONS,
    }


def _set_level(live: Live, level: object) -> dict[str, Any]:
    if level not in LOG_LEVELS:
        raise Invalid(f"level must be one of {', '.join(LOG_LEVELS)}")
    live.log_level = str(level)
    return {}


def _meta_for(party: Party, message: Message) -> dict[str, Any]:
    """The request's own `_meta` with what the stateless protocol wants to know of the client."""
    return {
        **mapping(mapping(message.get("params")).get("_meta")),
        CLIENT_CAPABILITIES_META_KEY: party.session.capabilities,
        CLIENT_INFO_META_KEY: party.session.client,
        LOG_LEVEL_META_KEY: party.live.log_level or "info",
    }


_CAPABILITY = {"elicitation/create": "elicitation", "sampling/createMessage": "sampling", "roots/list": "roots"}


def _require_capability(session: Session, method: str) -> None:
    if _CAPABILITY.get(method) not in session.capabilities:
        raise Refused(f"the tool needs an answer ({method}) that this client cannot give: use another client")


def _as_asked(request: Mapping[str, Any], question_id: str) -> dict[str, Any]:
    params = dict(mapping(request.get("params")))
    if params.get("mode") == "url":
        params.setdefault("elicitationId", question_id)  # required up to 2025-11-25, gone since
    return {"method": request.get("method"), "params": params}


def _answer_of(message: Message) -> Any:
    if "result" not in message:
        reason = mapping(message.get("error")).get("message", "no reason given")
        raise Refused(f"the client did not answer the tool's question: {reason}")
    return message["result"]
