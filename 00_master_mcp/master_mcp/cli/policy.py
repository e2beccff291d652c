"""`fleet policy`: whether the rules are good, and what they say of a call. Works with the hub running or stopped."""

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from fleetkit.settings import FleetSettings
    from fleetkit.store import Store
    from master_mcp.auth.caller import Caller
    from master_mcp.catalog.tools import Catalog
    from master_mcp.policy.explain import Explanation
    from master_mcp.policy.findings import Known
    from master_mcp.policy.verdict import Question, Verdict

app = typer.Typer(help="Permissions: check the rules, explain what they say of a call.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="JSON for machines.")]


@app.command()
def check(as_json: AsJson = False) -> None:
    """Read every policy file as the hub would. Exit code 2 and one sentence when one is wrong.

    Also warns of what is valid and cannot be meant: rules that never decide, groups that nobody is in.
    """
    import asyncio

    from fleetkit import settings
    from master_mcp.cli import show
    from master_mcp.policy.findings import findings

    config = settings.load()
    rules = asyncio.run(_rules(config))
    warnings = findings(rules, _known(config))
    files = list(dict.fromkeys(placed.file for placed in rules))
    if as_json:
        show.as_json({"files": files, "rules": [placed.id for placed in rules], "warnings": warnings})
        return
    show.table(
        ("file", "rule", "answer", "shipped"),
        ((p.file, p.rule.name, p.rule.answer or "limits", "yes" if p.shipped else "") for p in rules),
    )
    for warning in warnings:
        show.say(f"warning: {warning}")
    show.line(f"The policy is good: {len(rules)} rules in {', '.join(files)}.")


@app.command()
def explain(
    tool: str,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...")] = None,
    key: Annotated[str, typer.Option(help="Name or id of the key that would call.")] = "client",
    risk: Annotated[str | None, typer.Option(help="read, change or destroy; default the tool's own.")] = None,
    door: Annotated[str, typer.Option(help="mcp, rest, spoke:<name>, ...")] = "mcp",
    tainted: Annotated[bool, typer.Option("--tainted", help="The arguments come from untrusted content.")] = False,
    as_json: AsJson = False,
) -> None:
    """Why a call would be allowed, held or denied. Nothing is called.

    Example: fleet policy explain os.linux.runCommand command='rm -r /srv' --risk destroy
    """
    import asyncio

    from fleetkit import settings
    from master_mcp.cli import show
    from master_mcp.cli.calls import read_arguments
    from master_mcp.policy.verdict import Question

    config = settings.load()
    with _store(config) as store:
        found, caller = _catalog(config, store).resolve(tool), _caller(config, store, key)
    given = read_arguments(arguments or [], found.definition.get("inputSchema", {}).get("properties", {}))
    question = Question(caller, found, _risk(risk) if risk else found.risk, given, door, tainted)
    explained = asyncio.run(_explained(config, question))
    if as_json:
        show.as_json(_as_data(question, explained))
    else:
        _show(question, explained)


async def _rules(config: "FleetSettings") -> Any:
    from master_mcp.policy.engine import open_policy

    async with open_policy(config) as policy:
        return policy.rules


async def _explained(config: "FleetSettings", question: "Question") -> "Explanation":
    from master_mcp.policy.engine import open_policy
    from master_mcp.policy.explain import explain

    async with open_policy(config) as policy:
        return await explain(policy, question)


def _show(question: "Question", explained: "Explanation") -> None:
    from master_mcp.cli import show

    caller, verdict = question.caller, explained.verdict
    scopes, groups = ", ".join(caller.scopes), ", ".join(caller.groups)
    show.line(f"{_answer(verdict)}: {question.tool.id} ({question.risk}) for key {caller.name} [{groups}; {scopes}]")
    show.line(f"Decided by {verdict.rule}{f': {verdict.reason}' if verdict.reason else ''}")
    show.table(
        ("rule", "answer", "what it has to do with this call"), (list(asdict(o).values()) for o in explained.looked)
    )
    if question.tool.assesses:
        alone = explained.alone
        show.line(
            f"The tool judges its arguments: where it finds that they {alone} at most, the call runs without being held"
            if alone
            else "The tool judges its arguments; whatever it finds, the call does not run alone"
        )
    for limit in explained.limits:
        show.line(f"Counted by {limit.name}")


def _as_data(question: "Question", explained: "Explanation") -> dict[str, Any]:
    return {
        "tool": question.tool.id,
        "risk": question.risk,
        "key": question.caller.name,
        "door": question.door,
        "tainted": question.tainted,
        "answer": _answer(explained.verdict),
        "verdict": asdict(explained.verdict),
        "without_scopes_and_taint": asdict(explained.rules),
        "alone": explained.alone,
        "rules": [asdict(one) for one in explained.looked],
        "limits": [asdict(limit) for limit in explained.limits],
    }


def _answer(verdict: "Verdict") -> str:
    from master_mcp.policy.verdict import Effect

    return f"approve({verdict.quorum}, {verdict.group})" if verdict.effect is Effect.approve else verdict.effect.value


def _risk(word: str) -> Any:
    from fleetkit.errors import Invalid
    from fleetkit.risk import Risk

    if word not in Risk.__members__:
        raise Invalid(f"risk {word!r}: write read, change or destroy")
    return Risk(word)


@contextmanager
def _store(config: "FleetSettings") -> Generator["Store"]:
    from master_mcp.store import open_hub_store

    store = open_hub_store(config)
    try:
        yield store
    finally:
        store.close()


def _known(config: "FleetSettings") -> "Known":
    """What the hub knew when it ran last; nothing where it never ran."""
    from master_mcp.policy.findings import Known

    if config.hub.database_url is None and not (config.data_dir / "hub.db").exists():
        return Known()
    with _store(config) as store:
        return Known(_catalog(config, store).all(), _callers(config, store))


def _catalog(config: "FleetSettings", store: "Store") -> "Catalog":
    """The tools as the hub listed them last."""
    import sqlalchemy as sa

    from master_mcp.catalog.tools import Catalog, read_tool
    from master_mcp.spokes import OWN
    from master_mcp.store import catalog as table

    known, rows = Catalog(), {**config.spokes, **OWN}
    for listed in store.read_now(lambda db: db.execute(sa.select(table.c.service, table.c.tools)).all()):
        if listed.service in rows:
            row = rows[listed.service]
            known.replace(listed.service, [read_tool(listed.service, row, tool) for tool in listed.tools])
    return known


def _callers(config: "FleetSettings", store: "Store") -> list["Caller"]:
    import time

    from fleetkit import trust
    from master_mcp.auth.keys import Keys

    now = time.time()
    return [key.caller for key in Keys(store, trust.KeyRing(config.data_dir)).listed() if key.live(now)]


def _caller(config: "FleetSettings", store: "Store", name: str) -> "Caller":
    from fleetkit.errors import NotFound

    for caller in reversed(_callers(config, store)):
        if name in (caller.id, caller.name):
            return caller
    raise NotFound(f"no live key is called {name!r}: `fleet keys list` shows them")
