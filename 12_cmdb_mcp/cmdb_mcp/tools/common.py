"""What the tools share: argument types, and the open inventory."""

from typing import Annotated

from pydantic import Field, StringConstraints

from cmdb_mcp import spoke
from cmdb_mcp.inventory import Inventory

Ref = Annotated[str, Field(min_length=1, max_length=600, description="id (ci-7), class:name, or a unique name")]
SourceName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_-]{0,31}$")]
Limit = Annotated[int, Field(ge=1, le=200)]
Depth = Annotated[int, Field(ge=1, le=50)]


def inventory() -> Inventory:
    """The open inventory; raises Unavailable while the spoke is not running."""
    return spoke.state(Inventory)
