"""What a person names on the command line: a workflow of the library, a file, a run; and its inputs."""

import json
import re
from pathlib import Path
from typing import Any

from fleetkit.errors import Invalid
from fleetkit.shapes import mapping
from master_mcp.cli.calls import read_arguments
from master_mcp.cli.wire import Hub
from master_mcp.cli.workflow_definitions import read_file, read_text
from master_mcp.workflows import reading

_RUN = re.compile(r"wf_[0-9a-f]{16}.*")


def source(what: str) -> dict[str, Any]:
    """`{name}` of a workflow in the library, or the `{definition}` in a file: that has a dot or a slash."""
    return {"definition": read_file(Path(what))} if "." in what or "/" in what else {"name": what}


def is_run(what: str) -> bool:
    """Whether a word is the id of a run."""
    return _RUN.fullmatch(what) is not None and "." not in what and "/" not in what


def content(hub: Hub, source: dict[str, Any]) -> dict[str, Any]:
    """The definition that a source means; raises NotFound."""
    return source.get("definition") or hub.ask("orchestrator.getDefinition", name=source["name"])


def given(hub: Hub, source: dict[str, Any], pairs: list[str], file: Path | None) -> dict[str, Any]:
    """The inputs that a file and KEY=VALUE words mean; a word is JSON where the workflow does not want text."""
    found: dict[str, Any] = {}
    if file is not None:
        try:
            said: object = json.loads(read_text(file))
        except ValueError as error:
            raise Invalid(f"{file} is no JSON: {error}") from error
        if not mapping(said) and said != {}:
            raise Invalid(f"{file} must hold a JSON object: the inputs by name")
        found |= mapping(said)
    if pairs:
        schema = reading.input_schema(reading.read(content(hub, source)))
        found |= read_arguments(pairs, mapping(schema.get("properties")))
    return found
