"""The OpenAPI 3.1 document: what the operations say of themselves, written down. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from encoder_api.contract import Operation, Reply, Scope
from encoder_api.descriptions import field_descriptions
from encoder_api.fields import alias_of
from encoder_api.problems import MEDIA_TYPE, PROBLEMS, ProblemDocument, ProblemType

Mode = Literal["validation", "serialization"]
Schemas = Mapping[Any, dict[str, Any]]  # by model and mode

_REF: Final = "#/components/schemas/{model}"
_PATH_PARAMETERS: Final[dict[str, dict[str, Any]]] = {
    "id": {
        "description": "The job's number or its uuid.",
        "schema": {
            "oneOf": [{"type": "integer", "minimum": 1}, {"type": "string", "format": "uuid"}]
        },
    },
    "uuid": {"description": "The job's uuid.", "schema": {"type": "string", "format": "uuid"}},
    "name": {"description": "The pool's name.", "schema": {"type": "string"}},
    "number": {"description": "Which of the job's blobs.", "schema": {"type": "integer"}},
    "event": {"description": "The event's id.", "schema": {"type": "string", "format": "uuid"}},
}
_SECURITY: Final[list[dict[str, list[str]]]] = [{"apiKey": []}, {"session": []}]


def build_document(operations: Iterable[Operation], *, version: str) -> dict[str, Any]:
    """Everything that the service answers to, from the models that validate it."""
    offered = list(operations)
    schemas, definitions = _schemas(offered)
    links = {o.name: {"$ref": f"#/components/links/{o.name}"} for o in offered if _is_of_job(o)}
    paths: dict[str, dict[str, Any]] = {}
    for operation in offered:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(
            operation, schemas, links
        )
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Encoder",
            "version": version,
            "summary": "Transcode video: a request in, files and a webhook out.",
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions,
            "links": {
                operation.name: {
                    "operationId": operation.name,
                    "parameters": {"id": "$response.body#/uuid"},
                    "description": operation.summary,
                }
                for operation in offered
                if _is_of_job(operation)
            },
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "`Authorization: Bearer enc_…`. Scopes: "
                    + ", ".join(f"`{scope.value}`" for scope in Scope),
                },
                "session": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "encoder_session",
                    "description": "The dashboard's login, made by `POST /session`.",
                },
            },
        },
        "x-problems": [
            {"type": kind.uri, "status": kind.status, "title": kind.title}
            for kind in PROBLEMS.values()
        ],
    }


def _schemas(operations: list[Operation]) -> tuple[Schemas, dict[str, Any]]:
    """A reference for every model in use, and what the references mean."""
    used: dict[tuple[type[BaseModel], Mode], None] = {(ProblemDocument, "serialization"): None}
    for operation in operations:
        for given in (operation.body, operation.query):
            if given is not None:
                used[given, "validation"] = None
        for reply in operation.replies.values():
            if reply.model is not None:
                used[reply.model, "serialization"] = None
    references, document = models_json_schema(list(used), ref_template=_REF)
    definitions: dict[str, Any] = document["$defs"]
    for model in {inner for outer, _ in used for inner in _models_in(outer)}:
        described = field_descriptions(model)
        for name in (model.__name__, f"{model.__name__}-Input", f"{model.__name__}-Output"):
            properties = definitions.get(name, {}).get("properties", {})
            for field_name, field in model.model_fields.items():
                if field_name in described:
                    found = properties.get(alias_of(field_name, field), {})
                    found.setdefault("description", described[field_name])
    return references, definitions


def _models_in(model: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """A model and every model in its fields, at any depth."""
    seen: set[type[BaseModel]] = set()
    waiting: list[Any] = [model]
    while waiting:
        found = waiting.pop()
        if isinstance(found, type) and issubclass(found, BaseModel):
            if found not in seen:
                seen.add(found)
                waiting += [field.annotation for field in found.model_fields.values()]
        else:
            waiting += getattr(found, "__args__", ())
    yield from seen


def _is_of_job(operation: Operation) -> bool:
    """Whether it can be asked about a job of which no more than the uuid is known."""
    return operation.path.startswith("/jobs/{id}") and operation.path.count("{") == 1


def _operation(operation: Operation, schemas: Schemas, links: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "tags": [operation.tag],
        "parameters": [*_path(operation), *_query(operation, schemas), *_headers(operation)],
        "responses": {
            **{str(s): _reply(reply, schemas, links) for s, reply in operation.replies.items()},
            **_refusals(operation, schemas),
        },
    }
    if operation.description:
        described["description"] = operation.description
    if operation.scope is not None:
        described["security"] = _SECURITY
        described["x-scope"] = operation.scope.value
    if operation.body is not None:
        content: dict[str, Any] = {"schema": schemas[operation.body, "validation"]}
        if operation.examples:
            content["examples"] = {n: {"value": v} for n, v in operation.examples.items()}
        described["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": content},
        }
    return described


def _path(operation: Operation) -> Iterator[dict[str, Any]]:
    for name, parameter in _PATH_PARAMETERS.items():
        if f"{{{name}}}" in operation.path:
            yield {"name": name, "in": "path", "required": True, **parameter}


def _query(operation: Operation, schemas: Schemas) -> Iterator[dict[str, Any]]:
    if operation.query is None:
        return
    described = field_descriptions(operation.query)
    schema = operation.query.model_json_schema(ref_template=_REF)
    for name, field in operation.query.model_fields.items():
        alias = alias_of(name, field)
        yield {
            "name": alias,
            "in": "query",
            "required": field.is_required(),
            "description": described.get(name, ""),
            "schema": schema["properties"][alias],
        }


def _headers(operation: Operation) -> Iterator[dict[str, Any]]:
    for name, says in operation.headers.items():
        yield {
            "name": name,
            "in": "header",
            "required": False,
            "description": says,
            "schema": {"type": "string"},
        }


def _reply(reply: Reply, schemas: Schemas, links: dict[str, Any]) -> dict[str, Any]:
    described: dict[str, Any] = {"description": reply.says}
    if reply.names_job:
        described["links"] = links
    if reply.headers:
        described["headers"] = {
            name: {"description": says, "schema": {"type": "string"}}
            for name, says in reply.headers.items()
        }
    if reply.model is not None:
        content: dict[str, Any] = {"schema": schemas[reply.model, "serialization"]}
        if reply.example is not None:
            content["example"] = reply.example
        described["content"] = {
            reply.media_type: content,
            **{media_type: {"schema": {"type": "string"}} for media_type in reply.also},
        }
    elif reply.media_type != "application/json":
        described["content"] = {reply.media_type: {}}
    return described


def _refusals(operation: Operation, schemas: Schemas) -> dict[str, Any]:
    by_status: dict[int, list[ProblemType]] = {}
    for code in operation.problems:
        by_status.setdefault(PROBLEMS[code].status, []).append(PROBLEMS[code])
    return {
        str(status): _refusal(kinds, schemas)
        for status, kinds in sorted(by_status.items())
        if status not in operation.replies
    }


def _refusal(kinds: list[ProblemType], schemas: Schemas) -> dict[str, Any]:
    examples = {
        kind.code: {
            "value": {
                "type": kind.uri,
                "title": kind.title,
                "status": kind.status,
                "detail": f"{kind.title}.",
                "instance": "urn:encoder:request:4f1c…",
                "errors": [],
            }
        }
        for kind in kinds
    }
    schema = schemas[ProblemDocument, "serialization"]
    return {
        "description": ". ".join(kind.title for kind in kinds) + ".",
        "content": {MEDIA_TYPE: {"schema": schema, "examples": examples}},
    }
