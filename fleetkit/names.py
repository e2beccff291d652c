"""Every derived name of the fleet: folders, ports, import names, tool ids. Nothing else retypes one.

A tool has a canonical id, dotted camelCase segments (`os.linux.runCommand`), used everywhere the fleet
owns the notation. On the MCP wire `.` is written `_` (`os_linux_runCommand`), because several clients
drop a whole tool set over one dot. Segments never hold `_`, so the mapping needs no table.
"""

import re

BASE_PORT = 8000
MAX_WIRE = 48  # leaves room for the `mcp__server__` prefix within the 64 characters of common clients

_CANONICAL = re.compile(r"[a-z][a-zA-Z0-9]*(\.[a-z][a-zA-Z0-9]*)+")


def folder(number: int, name: str) -> str:
    """`1, "linux_cli"` -> `01_linux_cli_mcp`."""
    return f"{number:02d}_{name}_mcp"


def import_name(name: str) -> str:
    """The Python package of a spoke: its folder minus the digits."""
    return f"{name}_mcp"


def port(number: int) -> int:
    """The port a spoke listens on when it runs as its own process."""
    return BASE_PORT + number


def camel(name: str) -> str:
    """`run_command` -> `runCommand`; a camelCase name stays as it is."""
    head, *rest = name.split("_")
    return head + "".join(part[:1].upper() + part[1:] for part in rest)


def snake(name: str) -> str:
    """`runCommand` -> `run_command`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", name).lower()


def canonical(namespace: str, function: str) -> str:
    """The canonical id of a spoke's function.

    Raises ValueError when it breaks the rules above, so that a bad name fails at import.
    """
    name = f"{namespace}.{camel(function)}"
    if not _CANONICAL.fullmatch(name):
        raise ValueError(f"tool id {name!r}: use dotted camelCase segments without underscores")
    if len(name) > MAX_WIRE:
        raise ValueError(f"tool id {name!r} has {len(name)} characters; the limit is {MAX_WIRE}")
    return name


def wire(canonical_id: str) -> str:
    """The name a client sees on the MCP wire."""
    return canonical_id.replace(".", "_")


def spellings(canonical_id: str) -> set[str]:
    """Every spelling that a call may use for one tool, besides the bare last segment."""
    namespace, _, action = canonical_id.rpartition(".")
    return {
        canonical_id,
        wire(canonical_id),
        f"{wire(namespace)}_{snake(action)}",
        f"{namespace}.{snake(action)}",
    }
