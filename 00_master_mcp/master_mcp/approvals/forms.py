"""What somebody fills in when they approve: checked against the form of the approval."""

from collections.abc import Mapping
from typing import Any

import jsonschema_rs

from fleetkit.errors import Invalid
from fleetkit.shapes import mapping
from master_mcp.approvals.record import Approval, Decision


def schema_of(form: Mapping[str, Any]) -> dict[str, Any]:
    """A form as JSON Schema: an object whose fields are those of the form."""
    if "properties" in form or "type" in form:
        return {"type": "object", **form}
    required = [name for name, field in form.items() if "default" not in mapping(field)]
    return {"type": "object", "properties": dict(form), "required": required, "additionalProperties": False}


def check(approval: Approval, said: Decision) -> None:
    """Raises Invalid when a decision brings values that the approval does not ask for, or lacks some."""
    if approval.form is None:
        if said.values:
            raise Invalid(f"approval {approval.id} asks for no values: leave them out")
        return
    if not said.approve:
        return
    for error in jsonschema_rs.validator_for(schema_of(approval.form), mask="the value").iter_errors(
        dict(said.values or {})
    ):
        place = ".".join(map(str, error.instance_path)) or "values"
        fields = ", ".join(mapping(schema_of(approval.form).get("properties")))
        raise Invalid(f"approval {approval.id} has a form ({fields}): {place}: {error.message}")
