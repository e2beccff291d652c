"""Secrets: references, leases and rotation. No tool returns a value; a value goes from here to its use."""

from contextlib import AbstractAsyncContextManager

from fleetkit import Setting, Spoke
from secrets_mcp.options import SecretsOptions

__all__ = ["spoke"]


def _open(setting: Setting) -> AbstractAsyncContextManager[object]:
    from secrets_mcp.vault import serve_vault  # the database's libraries load when the spoke is served

    return serve_vault(setting)


spoke = Spoke(
    "secrets",
    instructions=(
        "Secrets by reference: pass secret://backend/path#field (or a lease) to a tool that takes a "
        "credential. Values are never shown here. explainPolicy says which use is allowed and why."
    ),
    lifespan=_open,
    options=SecretsOptions,
    tool_modules=(
        "secrets_mcp.tools.look",
        "secrets_mcp.tools.change",
        "secrets_mcp.tools.leases",
        "secrets_mcp.tools.internal",
    ),
)
