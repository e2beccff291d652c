"""What the CMDB offers besides tools: CIs as resources, and a prompt that looks at a failure before it happens."""

from collections.abc import Mapping

import sqlalchemy as sa

from cmdb_mcp import graph, lookup, spoke
from cmdb_mcp.models import Ci, ClassSummary
from cmdb_mcp.record import labels_like
from cmdb_mcp.tools.common import Ref, inventory
from cmdb_mcp.tools.reading import list_classes

COMPLETIONS = 100  # values that the protocol lets a completion have
REACH = 50  # CIs that the prompt names


@spoke.resource("classes")
async def classes() -> list[ClassSummary]:
    """Every class of CI, and how many CIs of it are active."""
    return await list_classes()


@spoke.resource("ci/{ci}")
async def configuration_item(ci: Ref) -> Ci:
    """One CI with attributes, provenance and relations: by id (ci-7), class:name (server:web-01) or a unique name."""
    return await inventory().read(lambda connection: lookup.details(connection, ci))


@spoke.prompt()
async def plan_outage(ci: Ref) -> str:
    """Plan for a CI that fails or is to be taken down: who is hit, what to check, in which order.

    Args:
        ci: id (ci-7), class:name (server:web-01), or a unique name.
    """
    return await inventory().read(lambda connection: _outage(connection, ci))


@spoke.completion("ci")
async def complete_ci(typed: str, given: Mapping[str, str]) -> list[str]:
    """Active CIs whose name or `class:name` begins like this."""
    return await inventory().read(lambda connection: labels_like(connection, typed, COMPLETIONS))


def _outage(connection: sa.Connection, ci: str) -> str:
    found = graph.impact(connection, ci, "both", 10, REACH)
    lines = [f"- {item.ci.label} ({item.depth} away): {' > '.join(item.path)}" for item in found.downstream]
    needs = [f"- {item.ci.label}: {' > '.join(item.path)}" for item in found.upstream]
    return "\n".join(
        [
            f"{found.ci.label} ({found.ci.id}) fails, or is to be taken down. What the CMDB knows:",
            "",
            f"It needs ({len(needs)}):",
            *(needs or ["- nothing that is recorded"]),
            "",
            f"What fails with it ({len(lines)}{', and more' if found.truncated else ''}):",
            *(lines or ["- nothing that is recorded"]),
            "",
            "Say who is hit and how badly, what to check first, what to switch over and in which order, and how to",
            "see that it is over. Name CIs as they are written here, and say what the CMDB does not tell.",
        ]
    )
