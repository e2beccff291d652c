"""How the hub keeps calls going (`hub.resilience` in fleet.yaml)."""

from pydantic import BaseModel, ConfigDict, Field


class ResilienceSettings(BaseModel):
    """Repeating, waiting and remembering; `hub.redis_url` says whether it is shared."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    retries: int = Field(default=2, ge=0, le=5, description="how often a call that is safe to repeat is sent again")
    queue_s: float = Field(default=1.0, ge=0, description="how long a call waits for a place at a full spoke")
    cache_bytes: int = Field(default=16 * 1024 * 1024, ge=0, description="room for answers that may be given again")
