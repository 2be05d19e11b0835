"""The page at /docs: the OpenAPI document for people, without scripts or foreign assets."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from html import escape
from typing import Any


def render_page(document: dict[str, Any]) -> str:
    body = "\n".join(_sections(document))
    title = f"{escape(document['info']['title'])} API {escape(document['info']['version'])}"
    return (
        f'<!doctype html>\n<html lang="en">\n<head><meta charset="utf-8"><title>{title}</title>\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="stylesheet" href="/docs/style.css"></head>\n'
        f"<body><main><h1>{title}</h1>\n<p>{escape(document['info']['summary'])} "
        'The machine-readable form is <a href="/openapi.json">/openapi.json</a>.</p>\n'
        f"{body}\n</main></body>\n</html>\n"
    )


def _sections(document: dict[str, Any]) -> Iterator[str]:
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            yield from _operation(path, method, operation)
    yield '<h2 id="problems">Problems</h2>'
    yield "<p>Every refusal is <code>application/problem+json</code> (RFC 9457).</p>"
    yield _table(
        ("type", "status", "title"),
        [(p["type"], str(p["status"]), p["title"]) for p in document["x-problems"]],
    )
    yield '<h2 id="schemas">Schemas</h2>'
    for name, schema in sorted(document["components"]["schemas"].items()):
        yield from _schema(name, schema)


def _operation(path: str, method: str, operation: dict[str, Any]) -> Iterator[str]:
    name = escape(operation["operationId"])
    yield f'<section><h2 id="{name}"><code>{method.upper()} {escape(path)}</code></h2>'
    yield f"<p><strong>{escape(operation['summary'])}</strong></p>"
    if "description" in operation:
        yield f"<p>{escape(operation['description'])}</p>"
    if "x-scope" in operation:
        yield f"<p>Scope: <code>{escape(operation['x-scope'])}</code></p>"
    if operation["parameters"]:
        given = [(p["name"], p["in"], p["description"]) for p in operation["parameters"]]
        yield _table(("parameter", "in", "meaning"), given)
    body = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    if body:
        yield f"<p>Body: {_type(body['schema'])}</p>"
    for title, example in body.get("examples", {}).items():
        yield _example(title, example["value"])
    rows = [(status, reply["description"]) for status, reply in operation["responses"].items()]
    yield _table(("answer", "meaning"), rows)
    for status, reply in operation["responses"].items():
        for content in reply.get("content", {}).values():
            if "example" in content:
                yield _example(f"{status}, for example", content["example"])
    yield "</section>"


def _example(title: str, value: Any) -> str:
    text = json.dumps(value, indent=2, ensure_ascii=False)
    return f"<details><summary>{escape(title)}</summary><pre>{escape(text)}</pre></details>"


def _schema(name: str, schema: dict[str, Any]) -> Iterator[str]:
    yield f'<h3 id="schema-{escape(name)}">{escape(name)}</h3>'
    if "description" in schema:
        yield f"<p>{escape(schema['description'])}</p>"
    if "enum" in schema:
        yield f"<p>One of {', '.join(f'<code>{escape(str(v))}</code>' for v in schema['enum'])}</p>"
    required = schema.get("required", [])
    rows = [
        f"<tr><td><code>{escape(field)}</code>{' *' if field in required else ''}</td>"
        f"<td>{_type(of)}</td><td>{escape(of.get('description', ''))}</td></tr>"
        for field, of in schema.get("properties", {}).items()
    ]
    if rows:
        yield f"<table>{''.join(rows)}</table>"


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        name = escape(schema["$ref"].rsplit("/", 1)[-1])
        return f'<a href="#schema-{name}">{name}</a>'
    for joined in ("anyOf", "oneOf"):
        if joined in schema:
            return " or ".join(_type(member) for member in schema[joined])
    if schema.get("type") == "array":
        return f"array of {_type(schema.get('items', {}))}"
    if "enum" in schema:
        return ", ".join(escape(json.dumps(value)) for value in schema["enum"])
    if "const" in schema:
        return escape(json.dumps(schema["const"]))
    return escape(str(schema.get("type", "anything")))


def _table(heads: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(cell)}</th>" for cell in heads)
    lines = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows
    )
    return f"<table><tr>{head}</tr>{lines}</table>"


STYLE = """\
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1rem; }
section { border-top: 1px solid #8886; }
table { border-collapse: collapse; width: 100%; margin: .5rem 0; }
th, td { text-align: left; vertical-align: top; padding: .25rem .75rem .25rem 0; }
td { border-top: 1px solid #8883; }
td:last-child { overflow-wrap: anywhere; }
pre { overflow: auto; padding: .75rem; background: #8881; }
"""
