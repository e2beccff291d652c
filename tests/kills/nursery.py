"""Lives of an engine one after the other on one data directory, each killed at a boundary, until the run has ended."""

import json
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from kills.kinds import RANDOM
from processes import plain_environment

ENGINE = Path(__file__).with_name("engine.py")
KILLED = -9
OWN = ("modules.json", "log.txt", "seen.jsonl")  # of a life


@dataclass(frozen=True)
class Life:
    """How one life went: where it was killed, if it was, what it passed and saw, how the run stood at its end."""

    killed_at: str | None
    passed: list[str]
    seen: list[dict[str, Any]]
    run: dict[str, Any] | None

    @property
    def doubts(self) -> list[str]:
        """The lines about which a person was asked."""
        return [one["what"] for one in self.seen if one["fact"] == "doubt"]


@dataclass(frozen=True)
class Chain:
    """All lives of one run; `lines` is what its steps wrote, `left` where none could be killed any more."""

    lives: list[Life]
    lines: list[str]
    left: set[str]

    @property
    def run(self) -> dict[str, Any]:
        """The run at its end."""
        run = self.lives[-1].run
        assert run is not None
        return run

    def values(self, fact: str) -> dict[str, set[Any]]:
        """For each step the values that a fact about it had over all lives."""
        found: dict[str, set[Any]] = {}
        for life in self.lives:
            for one in life.seen:
                if one["fact"] == fact:
                    found.setdefault(one["what"], set()).add(one["value"])
        return found

    def more_than_once(self) -> list[str]:
        """The changes that were made twice."""
        counts = Counter(line for line in self.lines if line != "tried")
        return [line for line, times in counts.items() if times > 1]


@dataclass
class Nursery:
    """The process that forks lives, and the data directory that each chain begins with."""

    base: Path
    process: "subprocess.Popen[str]" = field(init=False)
    cpu_s = 0.0

    def __post_init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(ENGINE)],
            env=plain_environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.template = self.base / "template"
        self.template.mkdir()
        self.whole("prepare", self.template)

    def ask(self, life: str, data: Path, **order: Any) -> dict[str, Any]:
        """How one life of lives.py went on a data directory."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({"life": life, "dir": str(data), **order}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the engine ended: {self.process.wait()}"
        return json.loads(line)

    def whole(self, life: str, data: Path, **order: Any) -> Any:
        """What a life that nobody kills ends with."""
        ended = self.ask(life, data, **order)
        assert ended["code"] == 0, f"{life}: {ended['code']}\n{(data / 'log.txt').read_text()[-8000:]}"
        return ended["end"]

    def fresh(self) -> Path:
        """A data directory as the first start of a hub leaves it."""
        data = Path(tempfile.mkdtemp(dir=self.base))
        shutil.copytree(self.template, data, dirs_exist_ok=True, ignore=shutil.ignore_patterns(*OWN))
        return data

    def close(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(10)
        self.process.stdout.close()

    def chain(self, workflow: str, targets: Collection[str] = (), random: Sequence[float] = ()) -> Chain:
        """A run whose lives are killed: after these times, then at the first of the targets that none was killed at."""
        data = self.fresh()
        left, times, lives = set(targets), list(random), list[Life]()
        while not lives or lives[-1].run is None:
            lives.append(self._life(data, workflow, left, times.pop() if times else None))
            left.discard(lives[-1].killed_at or "")
        book = data / "book"
        lines = book.read_text(encoding="utf-8").splitlines() if book.exists() else []
        shutil.rmtree(data)
        return Chain(lives, lines, left)

    def chains(self, workflow: str, targets: Collection[str]) -> list[Chain]:
        """As many as it takes to be killed at every one of the targets: not each comes again in a later life."""
        made = [self.chain(workflow, targets)]
        while made[-1].left:
            made.append(self.chain(workflow, made[-1].left))
            assert made[-1].left < made[-2].left, f"no boundary of {workflow} any more: {made[-1].left}"
        return made

    def _life(self, data: Path, workflow: str, targets: Collection[str], after_s: float | None) -> Life:
        ended = self.ask("live", data, workflow=workflow, kill_at=sorted(targets), kill_after_s=after_s)
        self.cpu_s += ended["cpu_s"]
        killed, passed = ended["code"] == KILLED, ended["passed"]
        log = (data / "log.txt").read_text(encoding="utf-8") if (data / "log.txt").exists() else ""
        assert killed or ended["code"] == 0, f"{workflow}: {ended['code']} after {passed[-3:]}\n{log[-8000:]}"
        last = passed[-1] if passed and passed[-1] in targets else RANDOM
        return Life(last if killed else None, passed, ended["seen"], None if killed else ended["end"])


def share(names: Collection[str], number: int, of: int) -> list[str]:
    """One of so many parts of all names, in which the same thing happens to different steps."""
    ordered = sorted(names)
    return ordered[len(ordered) * number // of : len(ordered) * (number + 1) // of]
