"""Lengths of time as people write them: 90s, 15m, 12h, 30d."""

import re

from fleetkit.errors import Invalid

UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def seconds(text: str) -> float:
    """The seconds that `text` means; raises Invalid when it means none."""
    found = re.fullmatch(r"(\d+)([smhd])", text)
    if found is None:
        raise Invalid(f"{text!r} is no length of time: write 90s, 15m, 12h or 30d")
    return float(found[1]) * UNITS[found[2]]
