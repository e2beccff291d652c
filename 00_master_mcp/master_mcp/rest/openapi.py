"""The gateway's description as OpenAPI 3.1, made from the routes and the models that check requests."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from master_mcp.rest.problems import KIND, Problem
from master_mcp.rest.route import Access, JsonObject, Route
from master_mcp.rest.table import parameters

_ABOUT = (
    "Every call goes the same way as one over MCP: permission, policy, limits, audit. Errors are problem+json "
    "(RFC 9457): `code` says what happened, `message` what to do next."
)
_PROBLEMS = {
    400: "The body is not JSON.",
    401: "No key, or one that does not hold.",
    403: "The key may not do this.",
    404: "There is no such thing.",
    413: "The body is too large.",
    415: "The body is not declared as JSON.",
    422: "The request is wrong; `message` says where.",
    429: "A limit was reached; `Retry-After` says when to come back.",
}


def document(routes: Sequence[Route]) -> JsonObject:
    """The whole description, as JSON-like data."""
    schemas = _schemas(routes)
    paths: dict[str, JsonObject] = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.0",
        "info": {"title": "MCP Fleet", "version": "1", "description": _ABOUT},
        "paths": paths,
        "components": {
            "schemas": schemas.components,
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
        },
    }


class _Schemas:
    """References of the models of all routes."""

    def __init__(self, references: Mapping[tuple[Any, JsonSchemaMode], JsonObject], components: JsonObject) -> None:
        self._references = references
        self.components = components

    def sent(self, model: type[BaseModel]) -> JsonObject:
        """As a client sends it."""
        return self._references[model, "validation"]

    def answered(self, model: type[BaseModel]) -> JsonObject:
        """As the hub answers it."""
        return self._references[model, "serialization"]


def _schemas(routes: Sequence[Route]) -> _Schemas:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Problem, "serialization"): None}
    for route in routes:
        for model in (route.body, route.query):
            if model is not None:
                wanted[model, "validation"] = None
        if not isinstance(route.answer, str):
            wanted[route.answer, "serialization"] = None
    references, top = models_json_schema(list(wanted), ref_template="#/components/schemas/{model}")
    return _Schemas(references, top.get("$defs", {}))


def _operation(route: Route, schemas: _Schemas) -> JsonObject:
    operation: JsonObject = {
        "operationId": _name(route),
        "summary": route.summary,
        "tags": [route.tag],
        "responses": _responses(route, schemas),
        "security": [] if route.access is Access.open else [{"bearer": []}, {"apiKey": []}],
    }
    named = [*_path_parameters(route), *_query_parameters(route, schemas)]
    if named:
        operation["parameters"] = named
    if route.body is not None:
        required = any(field.is_required() for field in route.body.model_fields.values())
        operation["requestBody"] = {"required": required, "content": _json(schemas.sent(route.body))}
    return operation


def _name(route: Route) -> str:
    words = [word.strip("{}") for word in route.path.replace(".", "/").split("/") if word]
    return "_".join([route.method.lower(), *words]) if words else f"{route.method.lower()}_root"


def _path_parameters(route: Route) -> list[JsonObject]:
    return [
        {
            "name": name,
            "in": "path",
            "required": True,
            "description": route.path_doc.get(name, ""),
            "schema": {"type": "string", "minLength": 1, "pattern": "^[^/]+$"},
        }
        for name in parameters(route.path)
    ]


def _query_parameters(route: Route, schemas: _Schemas) -> list[JsonObject]:
    if route.query is None:
        return []
    reference = schemas.sent(route.query)["$ref"].rpartition("/")[2]
    model = schemas.components[reference]
    return [
        {
            "name": name,
            "in": "query",
            "required": name in model.get("required", ()),
            "description": schema.get("description", ""),
            "schema": _one_type({key: value for key, value in schema.items() if key != "description"}),
        }
        for name, schema in model["properties"].items()
    ]


def _one_type(schema: JsonObject) -> JsonObject:
    """Without the null that an absent parameter has inside: in a query, null cannot be said."""
    options = [one for one in schema.get("anyOf", ()) if one != {"type": "null"}]
    if len(options) != 1:
        return schema
    return {key: value for key, value in schema.items() if key not in ("anyOf", "default")} | options[0]


def _responses(route: Route, schemas: _Schemas) -> JsonObject:
    plain: JsonObject = {kind: {"schema": {}} for kind in str(route.answer).split(", ")}
    good = plain if isinstance(route.answer, str) else _json(schemas.answered(route.answer))
    responses: JsonObject = {str(route.status): {"description": "Done.", "content": good}}
    responses |= {str(status): {"description": text, "content": good} for status, text in route.also.items()}
    problem = {KIND: {"schema": schemas.answered(Problem)}}
    if route.calls:
        held = "Held: a person has to approve it first; `approval_id` names the request."
        responses["202"] = {"description": held, "content": problem}
    for status in _problems_of(route):
        responses[str(status)] = {"description": _PROBLEMS[status], "content": problem}
    responses["default"] = {"description": "Any other error.", "content": problem}
    return responses


def _problems_of(route: Route) -> list[int]:
    found = [] if route.access is Access.open else [401, 403, 429]
    found += [400, 413, 415, 422] if route.body else []
    found += [422] if route.query and not route.body else []
    found += [404] if "{" in route.path or route.calls else []
    return sorted(found)


def _json(schema: JsonObject) -> JsonObject:
    return {"application/json": {"schema": schema}}
