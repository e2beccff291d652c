"""The internal form of a workflow: a graph of nodes, each with one task.

It holds what the Serverless Workflow DSL 1.0 calls `do` (nodes that need each other), `fork` (nodes that do not),
`for` (`Node.each`), `switch` (`Node.when`), `try` (`Node.retry`, `Node.on_error`), `wait` (`Pause`), `listen`
(`Listen`, `Ask`), `call` (`Invoke`) and `run` (`Sub`), so that documents in that language can become graphs too.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal


@dataclass(frozen=True)
class Invoke:
    """Call a tool; `arguments` is a template, `expect` a condition over the `.result` without which it has failed."""

    tool: str
    arguments: Mapping[str, Any]
    expect: str | None = None


@dataclass(frozen=True)
class Probe:
    """Find out by a call whether another call took effect: the condition `done` over its `.result`."""

    call: Invoke
    done: str


@dataclass(frozen=True)
class Pause:
    """Wait so many seconds, or until the moment that a template gives."""

    seconds: float | None = None
    until: str | None = None


@dataclass(frozen=True)
class Listen:
    """Wait for a signal by name, so many seconds at most."""

    signal: str
    timeout_s: float


@dataclass(frozen=True)
class Ask:
    """Wait until people decide; `message` is a template. Times are in seconds."""

    message: str
    quorum: int
    group: str
    expires_s: float
    escalate_after_s: float | None = None
    escalate_to: str | None = None
    form: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Sub:
    """Run another workflow; `inputs` is a template."""

    workflow: str
    inputs: Mapping[str, Any]


Task = Invoke | Pause | Listen | Ask | Sub


@dataclass(frozen=True)
class Each:
    """Run the task once for each item of a list, or of what a template gives."""

    items: str | Sequence[Any]
    concurrency: int
    goes_on: bool


@dataclass(frozen=True)
class Attempts:
    """How often a call is made in all, after which errors, with which waits in seconds."""

    most: int = 1
    on: frozenset[str] = frozenset()
    delay_s: float = 1.0
    factor: float = 2.0
    longest_s: float = 60.0


ONCE = Attempts()


@dataclass(frozen=True)
class Node:
    """One step. `on_error` is `fail`, `continue`, or with `goto` the node where the run goes on."""

    name: str
    needs: tuple[str, ...]
    task: Task
    when: str | bool = True
    each: Each | None = None
    attempts: Attempts = ONCE
    timeout_s: float | None = None
    on_error: Literal["fail", "continue", "goto"] = "fail"
    goto: str | None = None
    compensate: Invoke | None = None
    verify: Probe | None = None

    @property
    def waits(self) -> bool:
        """Whether it does nothing but wait."""
        return isinstance(self.task, Pause | Listen)


@dataclass(frozen=True)
class Graph:
    """A workflow that can be run; nodes stand in the order of the definition, which is that of ties."""

    name: str
    nodes: tuple[Node, ...]
    outputs: Mapping[str, Any] = field(default_factory=dict[str, Any])
    timeout_s: float | None = None

    def node(self, name: str) -> Node:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def before(self, name: str) -> set[str]:
        """Every node that is over when this one starts."""
        needs = {node.name: node.needs for node in self.nodes}
        found: set[str] = set()
        ahead = list(needs[name])
        while ahead:
            one = ahead.pop()
            if one not in found:
                found.add(one)
                ahead += needs[one]
        return found

    def after(self, *names: str) -> set[str]:
        """These nodes and every one that depends on them."""
        return {node.name for node in self.nodes if node.name in names or self.before(node.name) & set(names)}
