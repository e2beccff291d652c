"""The question to the person at the requesting client, and the sealed state that comes back with the answer."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mcp_types import CLIENT_CAPABILITIES_META_KEY

from fleetkit import trust
from fleetkit.scrub import scrubber
from fleetkit.shapes import mapping
from master_mcp.approvals.record import Approval
from master_mcp.proxy.answer import Message
from master_mcp.proxy.request import APPROVAL_STATE

QUESTION = "fleet_approval"
MAX_ARGUMENTS = 2000  # characters of the arguments that a question shows
_PURPOSE = "approval-state"
_SCHEMA = {
    "type": "object",
    "properties": {
        "approve": {"type": "boolean", "title": "Run it", "description": "true runs exactly this call, once"},
        "reason": {"type": "string", "title": "Reason", "description": "kept with the decision", "maxLength": 500},
    },
    "required": ["approve"],
}


@dataclass(frozen=True)
class State:
    """What a `requestState` of ours says: which approval, and for a tool's own question which one and its state."""

    approval_id: str
    round: str | None = None
    inner: str | None = None


class Questions:
    """Asks, and signs what a client has to send back."""

    def __init__(self, ring: trust.KeyRing) -> None:
        self._secret = ring.derive(_PURPOSE).hex()

    def ask(self, approval: Approval, request_id: object) -> Message:
        """The unfinished result that asks whether to run the call."""
        plan = scrubber.text(approval.plan)
        given = json.dumps(scrubber.data(dict(approval.arguments or {})), ensure_ascii=False)
        given = given if len(given) <= MAX_ARGUMENTS else f"{given[:MAX_ARGUMENTS]}..."
        wants = f"{approval.requester_name} wants to run {approval.tool} (risk: {approval.risk})."
        message = f"{wants}\n\n{plan}\n\narguments: {given}"
        params = {"mode": "form", "message": message, "requestedSchema": _SCHEMA}
        return {
            "jsonrpc": "2.0",
            "id": request_id,
            "result": {
                "resultType": "input_required",
                "inputRequests": {QUESTION: {"method": "elicitation/create", "params": params}},
                "requestState": self.seal(State(approval.id), approval.expires_at),
            },
        }

    def seal(self, state: State, until: float) -> str:
        """A `requestState` that is good until then."""
        return APPROVAL_STATE + trust.sign({**vars(state), "exp": until}, self._secret, _PURPOSE)

    def open(self, text: str) -> State:
        """What a state of ours says; raises Refused when it is forged or too old."""
        found = trust.verify(text.removeprefix(APPROVAL_STATE), self._secret, _PURPOSE)
        return State(found["approval_id"], found["round"], found["inner"])


def can_ask(params: Mapping[str, Any]) -> bool:
    """Whether the client behind these params shows its person a form."""
    capabilities = mapping(mapping(params.get("_meta")).get(CLIENT_CAPABILITIES_META_KEY))
    modes = mapping(capabilities.get("elicitation"))
    return "elicitation" in capabilities and (not modes or "form" in modes)
