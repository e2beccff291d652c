"""The settings of workflows (`hub.workflows:` in fleet.yaml)."""

from pydantic import BaseModel, ConfigDict, Field


class WorkflowSettings(BaseModel):
    """Bounds of runs, and how long ended ones are kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    running: int = Field(default=64, ge=1, description="runs under way at once; those that only wait do not count")
    queued: int = Field(default=1000, ge=0, description="runs that may wait for a place")
    lane: int = Field(default=32, ge=1, description="calls of all runs under way at one spoke")
    keep_s: float = Field(default=30 * 86400.0, gt=0, description="how long an ended run is kept")
    database_url: str | None = Field(
        default=None,
        description="SQLAlchemy URL of the journals; default $FLEET_DATA_DIR/workflows.db, or the hub's PostgreSQL",
    )
    poll_s: float = Field(default=1.0, gt=0, le=60, description="between looks for runs to go on with after a restart")
