"""What an operator can set for this spoke (`spokes.cmdb` in fleet.yaml, `FLEET_SPOKES__CMDB__*`)."""

from pydantic import Field

from fleetkit import SpokeOptions


class CmdbOptions(SpokeOptions):
    """Every option has a default that works."""

    seed_example: bool = Field(default=True, description="load the example fleet into an empty database")
    source_precedence: list[str] = Field(
        default=["manual", "servicenow", "netbox", "discovery", "csv", "*", "example"],
        description="who may overwrite whose attributes, strongest first; `*` stands for sources not listed",
    )
    max_import_rows: int = Field(default=5_000, ge=1)
    max_import_bytes: int = Field(default=4 * 1024 * 1024, ge=1024)
    max_export_rows: int = Field(default=5_000, ge=1)
