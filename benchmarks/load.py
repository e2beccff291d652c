"""The load generator, a process of its own: the same for every target.

It reads one job (JSON) from its first line of input, opens one session per worker where the era has
sessions, warms up, prints `{"calls": N}`, waits for a second line, measures, and prints the outcome.
Each answer must carry the unique text that was sent.
"""

import asyncio
import itertools
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import aiohttp
import orjson
import uvloop

MODERN, LEGACY = "2026-07-28", "2025-11-25"
ANSWER_BYTES = 200
_ACCEPT = {"content-type": "application/json", "accept": "application/json, text/event-stream"}
_CLIENT = {"name": "fleet-bench", "version": "1"}
MODERN_META: dict[str, Any] = {
    "io.modelcontextprotocol/protocolVersion": MODERN,
    "io.modelcontextprotocol/clientInfo": _CLIENT,
    "io.modelcontextprotocol/clientCapabilities": {},
}


@dataclass(frozen=True)
class Job:
    """One measurement of one target."""

    url: str
    headers: dict[str, str]
    era: str
    tool: str
    concurrency: int
    seconds: float
    warmup_s: float


@dataclass
class Outcome:
    """Calls sent and their times in ms; `wrong` holds the first wrong answers."""

    calls: int = 0
    seconds: float = 0.0
    times_ms: list[float] = field(default_factory=list[float])
    wrong: list[str] = field(default_factory=list[str])


class Worker:
    """One client: one kept-alive connection, one call at a time."""

    def __init__(self, job: Job, web: aiohttp.ClientSession, texts: Iterator[int]) -> None:
        self._job = job
        self._web = web
        self._texts = texts
        self._headers = job.headers | _ACCEPT
        self._meta: dict[str, Any] = {}
        if job.era == "modern":
            self._headers |= {"mcp-protocol-version": MODERN, "mcp-method": "tools/call", "mcp-name": job.tool}
            self._meta = MODERN_META

    async def open(self) -> None:
        """Open the worker's session where the era has one."""
        if self._job.era == "modern":
            return
        params = {"protocolVersion": LEGACY, "capabilities": {}, "clientInfo": _CLIENT}
        hello = {"jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params}
        async with self._web.post(self._job.url, json=hello, headers=self._headers) as answer:
            answer.raise_for_status()
            await answer.read()
            session = answer.headers.get("mcp-session-id")
        self._headers |= {"mcp-protocol-version": LEGACY} | ({"mcp-session-id": session} if session else {})
        ready = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        async with self._web.post(self._job.url, json=ready, headers=self._headers) as answer:
            answer.raise_for_status()
            await answer.read()

    async def run(self, until: float, outcome: Outcome) -> None:
        """Call until the time `until`."""
        while (started := time.perf_counter()) < until:
            outcome.calls += 1
            number = next(self._texts)
            problem = await self._call(number)
            outcome.times_ms.append((time.perf_counter() - started) * 1000)
            if problem and len(outcome.wrong) < 5:
                outcome.wrong.append(problem)

    async def _call(self, number: int) -> str | None:
        text = f"call-{number}-"
        params: dict[str, Any] = {"name": self._job.tool, "arguments": {"text": text}}
        if self._meta:
            params["_meta"] = self._meta
        body = orjson.dumps({"jsonrpc": "2.0", "id": number, "method": "tools/call", "params": params})
        try:
            async with self._web.post(self._job.url, data=body, headers=self._headers) as answer:
                raw = await answer.read()
            return wrong_with(raw, answer.status, answer.content_type, number, text)
        except (aiohttp.ClientError, TimeoutError) as error:
            return repr(error)


def wrong_with(raw: bytes, status: int, kind: str, number: int, text: str) -> str | None:
    """What is wrong with an answer; None when it is the one that was asked for."""
    if kind == "text/event-stream":
        raw = next((line[5:] for line in reversed(raw.splitlines()) if line.startswith(b"data:")), b"")
    try:
        message = orjson.loads(raw)
        found = message["result"]["content"][0]["text"]
    except (orjson.JSONDecodeError, KeyError, IndexError, TypeError):
        return f"HTTP {status}: {raw[:300]!r}"
    if message["id"] != number or found != text.ljust(ANSWER_BYTES, "."):
        return f"asked {number}, got {raw[:300]!r}"
    return None


async def measure(job: Job) -> None:
    """Run one job, in step with the parent on standard input and output."""
    timeout = aiohttp.ClientTimeout(total=60)
    connector = aiohttp.TCPConnector(limit=job.concurrency, keepalive_timeout=60)
    async with aiohttp.ClientSession(connector=connector, timeout=timeout) as web:
        texts = itertools.count(1)
        workers = [Worker(job, web, texts) for _ in range(job.concurrency)]
        await asyncio.gather(*(worker.open() for worker in workers))
        warm = await _together(workers, job.warmup_s)
        _say({"calls": warm.calls, "wrong": warm.wrong})
        await asyncio.to_thread(sys.stdin.readline)
        _say(asdict(await _together(workers, job.seconds)))


async def _together(workers: list[Worker], seconds: float) -> Outcome:
    outcome = Outcome()
    started = time.perf_counter()
    await asyncio.gather(*(worker.run(started + seconds, outcome) for worker in workers))
    outcome.seconds = time.perf_counter() - started
    return outcome


def _say(content: object) -> None:
    sys.stdout.buffer.write(orjson.dumps(content) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    uvloop.run(measure(Job(**orjson.loads(sys.stdin.readline()))))
