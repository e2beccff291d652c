"""The OpenAPI document: it tells of every route what the route does, and the hub keeps to it."""

import re
import sys
from pathlib import Path
from subprocess import PIPE, STDOUT
from typing import Any

import jsonschema_rs
import pytest
from gateways import Gateway, odd
from hubs import listening, rows, running_hub, settle
from processes import plain_environment

from master_mcp.rest.route import Route
from master_mcp.rest.table import Table

pytestmark = pytest.mark.asyncio(loop_scope="module")

PROMISED = {
    *("GET /", "GET /health", "GET /ready", "GET /metrics", "GET /openapi.json", "GET /docs"),
    *("POST /mcp/execute", "POST /mcp/tools/execute", "GET /mcp/status", "GET /mcp/servers", "GET /mcp/tools"),
    *("GET /mcp/servers/{name}/tools", "POST /mcp/servers/{name}/reload", "GET /plugins", "POST /plugins/reload"),
    *("GET /diagnostics/connection", "GET /diagnostics/performance"),
    *("GET /approvals", "GET /approvals/{id}", "POST /approvals/{id}/approve", "POST /approvals/{id}/deny"),
    *("POST /approvals/{id}/redeem", "GET /audit", "GET /audit/verify", "GET /audit/export"),
    *("GET /keys", "POST /keys", "POST /keys/{id}/rotate", "POST /keys/{id}/revoke"),
    *("POST /workflows/runs", "GET /workflows/runs", "GET /workflows/runs/{id}", "GET /workflows/runs/{id}/events"),
    *("GET /workflows/runs/{id}/graph", "GET /workflows/runs/{id}/view", "GET /workflows/runs/{id}/artifacts/{name}"),
    *("POST /workflows/runs/{id}/cancel", "POST /workflows/runs/{id}/resume", "POST /workflows/runs/{id}/retry"),
    *("POST /workflows/runs/{id}/signal", "GET /workflows/definitions", "POST /workflows/definitions"),
    *("POST /workflows/definitions/validate", "GET /workflows/definitions/{name}"),
    *("DELETE /workflows/definitions/{name}", "GET /workflows/definitions/{name}/graph", "POST /hooks/{name}"),
}

# A workflow is any JSON object to its schema: whether it makes sense is 422, and no wrong answer to right input.
SCHEMATHESIS = """
[[operations]]
include-path-regex = "^/workflows/(runs|definitions|definitions/validate)$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "403", "404", "409", "422", "429"]
"""


@pytest.fixture
def routes(hub: Gateway) -> tuple[Route, ...]:
    """What the hub really serves."""
    return hub.hub.hub.app.rest.table.routes


async def _document(hub: Gateway) -> dict[str, Any]:
    return (await hub.get("/openapi.json", key="")).body


async def test_the_document_tells_of_every_route_and_of_nothing_else(hub: Gateway, routes: tuple[Route, ...]):
    document = await _document(hub)
    told = {f"{method.upper()} {path}" for path, here in document["paths"].items() for method in here}
    assert told == {f"{route.method} {route.path}" for route in routes} == PROMISED
    assert document["openapi"] == "3.1.0"


async def test_every_operation_is_named_once_and_described(hub: Gateway):
    operations = [one for here in (await _document(hub))["paths"].values() for one in here.values()]
    names = [one["operationId"] for one in operations]
    assert len(set(names)) == len(names) == len(PROMISED)
    assert all(one["summary"] and one["tags"] and one["responses"]["default"] for one in operations)


async def test_security_in_the_document_is_the_security_of_the_route(hub: Gateway, routes: tuple[Route, ...]):
    paths = (await _document(hub))["paths"]
    for route in routes:
        needs_key = bool(paths[route.path][route.method.lower()]["security"])
        answered = await hub.send(route.method, re.sub("{.*?}", "x", route.path), key="")
        assert (answered.status == 401) == needs_key, route.path


async def test_every_reference_leads_to_a_schema_and_every_schema_is_one(hub: Gateway):
    document = await _document(hub)
    schemas = document["components"]["schemas"]
    referred = set(re.findall(r"#/components/schemas/([\w.-]+)", str(document)))
    assert referred <= set(schemas)
    for name in schemas:
        jsonschema_rs.validator_for({"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}})


async def test_what_is_answered_fits_the_schema_of_its_status(hub: Gateway):
    document = await _document(hub)
    for path in ("/mcp/status", "/mcp/tools", "/plugins", "/diagnostics/performance", "/keys", "/audit", "/ready"):
        answer = await hub.get(path)
        schema = document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]["schema"]
        jsonschema_rs.validator_for({**schema, "components": document["components"]}).validate(answer.body)


async def test_both_shapes_of_a_call_are_in_the_document(hub: Gateway):
    document = await _document(hub)
    body = document["paths"]["/mcp/execute"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    validator = jsonschema_rs.validator_for({**body, "components": document["components"]})
    assert validator.is_valid({"action": "look", "params": {}})
    assert validator.is_valid({"server_name": "odd", "tool_name": "look", "parameters": {}, "timeout": 5})
    assert not validator.is_valid({"params": {}})
    assert not validator.is_valid({"action": "look", "timeout": 0})


async def test_the_page_for_people_names_every_path_and_loads_nothing(hub: Gateway):
    page = await hub.get("/docs", key="")
    assert all(f"<code>{one.split()[1]}</code>" in page.body for one in PROMISED)
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    assert re.findall(r"(?:src|href)=\"(?!/openapi\.json)", page.body) == []


async def test_a_route_is_registered_once():
    async def nothing(_request: Any) -> Any: ...

    route = Route("GET", "/x", nothing, "Do nothing.", "test", "text/plain")
    with pytest.raises(ValueError, match="GET /x is registered twice"):
        Table([route, route])


@pytest.mark.timeout(600)
async def test_hundreds_of_generated_requests_are_answered_as_the_document_says(tmp_path: Path):
    """Schemathesis: no 5xx, only documented answers, wrong input refused, right input taken, keys required."""
    import asyncio

    from spoken import spoke_app

    tools = [{"name": "os_odd_look", "inputSchema": {"type": "object"}, "_meta": {"fleet/id": "os.odd.look"}}]
    async with (
        listening(spoke_app(odd, tools)) as url,
        running_hub(tmp_path / "hub", rows(odd=url)) as running,
    ):
        await settle(running, "odd")
        (tmp_path / "schemathesis.toml").write_text(SCHEMATHESIS, encoding="utf-8")
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "schemathesis"),
            *("run", f"{running.url}/openapi.json", "--header", f"Authorization: Bearer {running.admin}"),
            *("--checks", "all", "--phases", "examples,coverage,fuzzing", "--max-examples", "4"),
            *("--generation-deterministic", "--no-shrink", "--continue-on-failure", "--no-color"),
            *("--request-timeout", "60", "--warnings", "off"),
            cwd=tmp_path,
            env=plain_environment(),
            stdout=PIPE,
            stderr=STDOUT,
        )
        said, _ = await process.communicate()
    assert process.returncode == 0, said.decode()[-6000:]
    assert sum(map(int, re.findall(rb"(\d+) generated", said))) > 300
