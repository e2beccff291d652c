"""What is under way in the sessions of older clients, while it is: calls, questions, what they listen to."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from master_mcp.catalog.news import Listener, News
from master_mcp.mcp.rpc import Message

MAX_KEPT = 2000  # sessions that are remembered although nothing is under way in them


@dataclass(eq=False)
class Live:
    """One session. Nothing of it survives a restart of the hub."""

    calls: dict[object, asyncio.Task[Any]] = field(default_factory=dict[object, "asyncio.Task[Any]"])
    questions: dict[str, asyncio.Future[Message]] = field(default_factory=dict[str, "asyncio.Future[Message]"])
    listener: Listener = field(default_factory=Listener)
    log_level: str | None = None
    streams: int = 0

    @property
    def busy(self) -> bool:
        """Whether somebody waits for something in it right now."""
        return bool(self.calls or self.streams)

    @property
    def worth_keeping(self) -> bool:
        """Whether the client has told something that later requests build on."""
        return self.log_level is not None or bool(self.listener.watched)

    def cancel(self) -> None:
        """End every call under way."""
        for task in self.calls.values():
            task.cancel()


class Sessions:
    """The live part of every session, by its id."""

    def __init__(self, news: News) -> None:
        self._news = news
        self._live: dict[str, Live] = {}

    def of(self, token: str) -> Live:
        """The live part of a session, made when there is none."""
        live = self._live.get(token)
        if live is None:
            live = self._live[token] = Live()
            self._news.add(live.listener)
            self._make_room()
        return live

    def known(self, token: str) -> Live | None:
        """The live part of a session, None when nothing is under way or kept."""
        return self._live.get(token)

    def rest(self, token: str) -> None:
        """Something ended: forget the session's live part unless something of it is still needed."""
        live = self._live.get(token)
        if live is not None and not live.busy and not live.worth_keeping:
            self._forget(token)

    def end(self, token: str) -> None:
        """The client ended its session."""
        live = self._live.get(token)
        if live is not None:
            live.cancel()
            self._forget(token)

    def _forget(self, token: str) -> None:
        self._news.remove(self._live.pop(token).listener)

    def _make_room(self) -> None:
        """The longest kept idle sessions go: clients that never say goodbye must not fill the memory."""
        surplus = len(self._live) - MAX_KEPT
        if surplus > 0:
            before = list(self._live)[:-1]  # not the one that just came
            for token in [token for token in before if not self._live[token].busy][:surplus]:
                self._forget(token)
