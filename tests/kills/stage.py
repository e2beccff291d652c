"""A real hub and the demo spoke as processes of their own, driven through the hub's doors with the operator's key."""

import json
import time
import urllib.error
import urllib.request
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jumping_clock
import processes
from kills import demo
from processes import CHECKOUT, plain_environment
from support import free_port

ENDED = ("completed", "failed", "cancelled")
LOOK_S = 0.03
OVER_S = 45.0


@dataclass
class Stage:
    """What a test kills and asks."""

    hub: processes.Hub
    spoke: processes.Process
    kills: list[str] = field(default_factory=list[str])
    asked: list[str] = field(default_factory=list[str])  # the kills after which a person was asked
    facts: dict[str, set[Any]] = field(default_factory=dict[str, set[Any]])
    _told: set[str] = field(default_factory=set[str])
    _stood: tuple[str, float] = ("", 0.0)

    def rest(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> tuple[int, Any]:
        """One request: status and JSON."""
        request = urllib.request.Request(self.hub.url + path, method=method)
        request.add_header("Authorization", f"Bearer {self.hub.key('admin')}")
        request.add_header("Content-Type", "application/json")
        data = None if body is None else json.dumps(body).encode()
        try:
            with urllib.request.urlopen(request, data, timeout=50) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)

    def start(self, definition: Mapping[str, Any], inputs: Mapping[str, Any]) -> str:
        """Begin a run; its id."""
        order = {"definition": definition, "inputs": inputs, "wait_s": 0}
        status, run = self.rest("POST", "/workflows/runs", order)
        assert status == 200, run
        return str(run["id"])

    def run(self, run_id: str) -> dict[str, Any]:
        """A run as it stands."""
        status, run = self.rest("GET", f"/workflows/runs/{run_id}")
        assert status == 200, run
        return run

    def moves(self, run: Mapping[str, Any]) -> None:
        """Fail, with all there is to know, when a run has stood still for long."""
        stands = json.dumps([run["results"], self.kills])
        if stands != self._stood[0]:
            self._stood = (stands, time.monotonic())
        assert time.monotonic() < self._stood[1] + OVER_S, f"it stands still: {run}\n{self.hub.process.last(40)}"

    def beside(self, name: str) -> Path:
        """A file by which the spoke is held, or says how far it is."""
        return self.hub.data_dir / name

    def lines(self) -> list[str]:
        """What the spoke's tools did."""
        book = self.beside("book")
        return book.read_text(encoding="utf-8").splitlines() if book.exists() else []

    def kill(self, what: str, hold: str | None = None) -> None:
        """SIGKILL, and the next start; a call that is held comes to its end in between."""
        self.kills.append(what)
        self._told.clear()
        self.hub.process.kill()
        if hold is not None:
            self.beside(f"hold {hold}").unlink()
            over = self.beside(f"over {hold.partition(' ')[2]}")
            self.until(over.exists)
        self.hub.restart()

    def until(self, holds: Any) -> None:
        """Wait until something holds; fails when it never does."""
        ends = time.monotonic() + OVER_S
        while not holds():
            assert time.monotonic() < ends, "never"
            time.sleep(LOOK_S)

    def attend(self, run_id: str) -> dict[str, Any]:
        """Help a run as an operator would; how it stands."""
        _, listed = self.rest("GET", "/workflows/runs")
        for one in listed["runs"]:
            if one["status"] in ("waiting", "in_doubt"):
                shown = self.run(one["id"])
                for step in shown["results"]:
                    self._help(shown, step)
        return self.run(run_id)

    def _help(self, run: Mapping[str, Any], step: Mapping[str, Any]) -> None:
        name, waits = step["name"], step.get("waits_for", "")
        if step["status"] == "waiting":
            for fact in ("approval_id", "due_at"):
                if step.get(fact) is not None:
                    self.facts.setdefault(f"{name} {fact}", set()).add(step[fact])
        told = f"{run['id']} {name} {step['item']}"
        if told in self._told:
            return
        if step["status"] == "in_doubt":
            self._told.add(told)
            self._clear(run, name, step["item"])
        elif step["status"] == "waiting" and waits == "approval":
            self._told.add(told)
            self.rest("POST", f"/approvals/{step['approval_id']}/approve", {"values": demo.FILLED})
        elif step["status"] == "waiting" and waits.startswith("signal "):
            self._told.add(told)
            self.rest("POST", f"/workflows/runs/{run['id']}/signal", {"name": demo.SIGNAL, "payload": demo.PAYLOAD})

    def _clear(self, run: Mapping[str, Any], name: str, item: int | None) -> None:
        line = demo.line_of(run["workflow_name"], name, item)
        if "mark" in run["inputs"]:
            line = f"{run['inputs']['mark']} {name}" if name != "inner" else "inner"
        said: dict[str, Any] = {"step": name, "outcome": "done" if line in self.lines() else "repeat"}
        if said["outcome"] == "done":
            said["result"] = line.split()[-1] if name == "gone" else line
        if item is not None:
            said["item"] = item
        self.rest("POST", f"/workflows/runs/{run['id']}/resume", said)
        self.asked += self.kills[-1:]


class ClockedHub(processes.Hub):
    """A hub on a calendar that the test sets: the file `clock` beside its data."""

    program = CHECKOUT / "tests" / "chaos" / "hub.py"

    def __init__(self, data: Path, spokes: Mapping[str, Mapping[str, Any]], settings: Mapping[str, Any]) -> None:
        self.environment = {jumping_clock.VARIABLE: str(data / "clock")}
        super().__init__(data, spokes, settings)


@contextmanager
def stage(data: Path, kind: type[processes.Hub] = processes.Hub) -> Generator[Stage]:
    """A hub and the spoke, ended by their ids; the spoke follows the calendar too."""
    port = free_port()
    (data / "clock").write_text("0", encoding="utf-8")
    argv = (str(CHECKOUT / "tests" / "kills" / "spoke.py"), str(data), str(port))
    spoke = processes.Process(
        processes.sys.executable, *argv, env=plain_environment() | {jumping_clock.VARIABLE: str(data / "clock")}
    )
    try:
        spoke.until(lambda line: "port" in line)
        row = {**demo.ROW, "url": f"http://127.0.0.1:{port}"}
        hub = kind(data, {demo.SERVICE: row}, {"workflows": {"poll_s": 0.05}})
        try:
            made = Stage(hub, spoke)
            status, saved = made.rest("POST", "/workflows/definitions", {"definition": demo.PART})
            assert status == 200, saved
            yield made
        finally:
            hub.process.kill()
    finally:
        spoke.kill()
