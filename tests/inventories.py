"""How tests of the CMDB start it."""

from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from fleetkit.testing import SpokeClient

Start = Callable[..., AbstractAsyncContextManager[SpokeClient]]
