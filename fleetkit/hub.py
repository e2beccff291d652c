"""Calling another domain's tool from inside a spoke: through the hub, as the caller of the call under way."""

from collections.abc import Mapping
from typing import Any

from fleetkit import correlation, http
from fleetkit.errors import Refused
from fleetkit.spoke import Setting

CALL_PATH = "/internal/call"


class HubClient:
    """The hub as a spoke reaches it."""

    def __init__(self, setting: Setting, timeout_s: float = 60.0) -> None:
        self._setting = setting
        self._timeout_s = timeout_s

    async def call(self, tool: str, arguments: Mapping[str, Any] | None = None) -> Any:
        """The structured result of `tool` (a canonical id).

        Permissions, approvals, limits and audit are those of the caller whose call this is part of, and
        the spoke's row must list the tool under `calls`. Raises the FleetError the hub answered with;
        Refused outside a call that the hub has signed.
        """
        context = correlation.current()
        if context is None or context.token is None:
            raise Refused("another tool is called only inside a call that came through the hub")
        wish = {"context": context.token, "tool": tool, "arguments": dict(arguments or {})}
        headers = {"authorization": f"Bearer {self._setting.service_token}"}
        answer = await http.post_json(self._setting.hub_url + CALL_PATH, wish, headers, self._timeout_s)
        return answer["result"]
