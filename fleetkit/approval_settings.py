"""The settings of held calls (`hub.approvals:` in fleet.yaml)."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Event = Literal["held", "approved", "denied", "cancelled", "escalated", "expired", "executed", "failed", "in_doubt"]


class Webhook(BaseModel):
    """Somebody who is told of held calls over HTTP; each message is signed with the secret in `secret_file`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str = Field(pattern=r"^https?://", description="where to POST; redirects are not followed")
    secret_file: Path = Field(description="a file with the shared secret, at least 16 characters")
    events: list[Event] = ["held", "escalated", "approved", "denied", "cancelled", "expired"]


class ApprovalSettings(BaseModel):
    """Bounds of held calls, and who is told of them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_pending: int = Field(default=50, ge=1, description="calls of one key that may wait for a decision at once")
    ask_again_after_s: float = Field(
        default=600.0, ge=0, description="a call that was denied is refused outright for so long"
    )
    max_result_bytes: int = Field(default=64 * 1024, ge=0, description="a larger result is not kept with its approval")
    webhooks: list[Webhook] = []
