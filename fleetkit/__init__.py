"""What every service of the fleet shares. Light to import: servers and vendors load on first use."""

from fleetkit.errors import (
    Conflict,
    FleetError,
    Invalid,
    NeedsApproval,
    NotFound,
    OverBudget,
    Refused,
    TimedOut,
    Unavailable,
)
from fleetkit.risk import Assessment, Risk
from fleetkit.spoke import Setting, Spoke, SpokeOptions

__all__ = [
    "Assessment",
    "Conflict",
    "FleetError",
    "Invalid",
    "NeedsApproval",
    "NotFound",
    "OverBudget",
    "Refused",
    "Risk",
    "Setting",
    "Spoke",
    "SpokeOptions",
    "TimedOut",
    "Unavailable",
]
