"""What the tools answer. None of these has a field for a value, but `SecretInfo.value` under a rule."""

from datetime import datetime

from pydantic import BaseModel, Field


class SecretEntry(BaseModel):
    """One secret in a list. Times are UTC; `age_days` counts from its last change."""

    reference: str
    fields: list[str]
    tags: list[str] = []
    modified_at: datetime | None = None
    age_days: int | None = None
    expires_at: datetime | None = None


class SecretInfo(SecretEntry):
    """One secret in full, without its value. `version` counts its values from 1; older ones are history."""

    created_at: datetime | None = None
    version: int = 1
    writable: bool = False
    attachments: list[str] = []
    last_used_at: datetime | None = None
    uses: int = 0
    note: str = ""
    value: str | None = Field(default=None, description="only where a rule with `reveal` allows it")


class Stored(BaseModel):
    """A secret that now exists or has a new value. `entropy_bits` is absent for an imported value."""

    reference: str
    version: int
    entropy_bits: float | None = None


class Lease(BaseModel):
    """A right to use one secret for a while. Pass `reference` where a credential is wanted."""

    lease_id: str
    reference: str
    secret: str
    state: str = Field(description="active, used_up, expired or revoked")
    expires_at: datetime
    uses: int
    max_uses: int | None


class Explanation(BaseModel):
    """Whether a use would be allowed, and by which rule."""

    allowed: bool
    rule: str | None
    reason: str


class BackendStatus(BaseModel):
    """One backend: `state` is ready, not_configured or unavailable, with the reason and what to do."""

    name: str
    state: str
    writable: bool
    detail: str


class Backends(BaseModel):
    """Every backend, and what was used since the database began."""

    backends: list[BackendStatus]
    active_leases: int
    outcomes: dict[str, int]
