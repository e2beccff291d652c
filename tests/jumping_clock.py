"""A calendar that a test can set: `time.time()` of this process is off by the seconds in a file.

The clock of the machine is not a test's to set, and where time is faked by preloading a library the
monotonic clock, which a real jump leaves alone, jumps too.
"""

import os
import time
from pathlib import Path

VARIABLE = "FLEET_TEST_CLOCK"


def follow() -> None:
    """From now on follow the file that the environment names, if it names one."""
    named = os.environ.get(VARIABLE)
    if named is None:
        return
    offset, real = Path(named), time.time
    time.time = lambda: real() + float(offset.read_text(encoding="utf-8"))
