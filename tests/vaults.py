"""Names shared by the tests of the secrets service."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from fleetkit.correlation import Caller
from fleetkit.testing import SpokeClient

PASSWORD = "correct horse battery"
WEB1 = "hunter2-of-web1"
SEED = "JBSWY3DPEHPK3PXP"
AGENT = Caller("k-agent", "claude", "agent")
OTHER = Caller("k-other", "cursor", "agent")

Start = Callable[..., AbstractAsyncContextManager[SpokeClient]]
Use = Callable[..., Any]
Outcomes = Callable[[], list[tuple[str, ...]]]
