"""Policies of a test's choosing, and the calls they are asked about."""

from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml

from fleetkit import settings
from fleetkit.jq import Jq
from fleetkit.risk import Risk
from master_mcp.auth.caller import Caller
from master_mcp.catalog.tools import CatalogTool
from master_mcp.policy.engine import Policy
from master_mcp.policy.files import Folders
from master_mcp.policy.verdict import Question, Verdict

SHIPPED = settings.CHECKOUT / "config" / "policies"
AGENT = Caller("a1", "client", "agent", ("destroy:*",), ("agents",))
OPERATOR = Caller("o1", "admin", "operator", ("destroy:*", "manage"), ("operators",))


def tool(name: str = "cmdb.deleteCi", risk: str = "destroy", *, service: str = "cmdb", assesses: bool = False) -> Any:
    """A tool of the catalog."""
    return CatalogTool(name, name.replace(".", "_"), service, name, Risk(risk), assesses, None, {})


def ask(
    caller: Caller = AGENT, risk: str = "read", arguments: Mapping[str, Any] | None = None, **more: Any
) -> Question:
    """A call; `tool=`, `door=` and `tainted=` as in Question."""
    return Question(caller, more.pop("tool", tool()), Risk(risk), arguments or {}, **more)


def write(folder: Path, **files: Any) -> Path:
    """Policy files: a list of rules as YAML, text as it is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        text = content if isinstance(content, str) else yaml.safe_dump({"rules": content})
        (folder / f"{name}.yaml").write_text(text, encoding="utf-8")
    return folder


@asynccontextmanager
async def loaded(user: Path, shipped: Path = SHIPPED) -> AsyncGenerator[Policy]:
    """The policy of these folders."""
    jq = Jq()
    try:
        policy = Policy(Folders(shipped, user), jq)
        await policy.load()
        yield policy
    finally:
        await jq.close()


async def verdict_of(folder: Path, rules: list[dict[str, Any]], question: Question) -> Verdict:
    """What these rules alone, in a user's file over no shipped one, say of a call."""
    async with loaded(write(folder, mine=rules), folder / "nothing") as policy:
        return await policy.decide(question)


def rule(answer: str | None = "allow", name: str = "one", **keys: Any) -> dict[str, Any]:
    """A rule as it stands in YAML."""
    return {"name": name, **({"answer": answer} if answer else {}), **keys}
