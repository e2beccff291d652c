"""`hub.audit` in fleet.yaml: where the audit's key and anchor lie, how often it is sealed, how long rows stay."""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field


class AuditSettings(BaseModel):
    """The settings of the audit. A relative path starts at the data directory."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    key_file: Path | None = Field(default=None, description="the chain's key; default derived from keys/root.key")
    anchor_file: Path = Field(default=Path("audit/anchor.jsonl"), description="where checkpoints are repeated")
    segment_dir: Path = Field(default=Path("audit"), description="where sealed segments are kept")
    checkpoint_rows: int = Field(default=1000, ge=1, description="rows between two signed checkpoints at most")
    checkpoint_s: float = Field(default=60.0, gt=0, description="seconds until new rows are under a checkpoint")
    segment_rows: int = Field(default=100_000, ge=1, description="rows of one sealed segment")
    keep_rows: int | None = Field(default=1_000_000, ge=0, description="sealed rows beyond it leave the database")
    keep_days: float | None = Field(default=None, gt=0, description="sealed rows older than this leave the database")
