"""
The custom resources agree with the request of the API, field by field and limit by limit.

What only an API server can judge (CEL, structural rules, the scale subresource) is tested on a real
one in the cluster ring; here is what can be read off.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from encoder_core import names
from encoder_core.failures import Budget
from encoder_core.model import SECRET_QUERY_PARAMETERS
from encoder_core.redaction import split_secrets
from encoder_core.specs import JobSpec
from encoder_core.states import AttemptStatus, OutputStatus
from encoder_operator.quantity import parse_bytes
from tests.core.test_redaction import REQUESTS, places_of
from tests.docs.render import DOCS, ROOT
from tests.original import ORIGINAL

CRDS = ROOT / "crds"
DEFINITIONS = {
    plural: yaml.safe_load((CRDS / f"{plural}.yaml").read_text())
    for plural in ("transcodejobs", "transcodepools")
}
Schema = dict[str, Any]

# A job of the API says `pool`, a resource says `poolRef`, as Kubernetes does.
OF_THE_RESOURCE_ALONE = {
    "poolRef",
    "credentialsSecretRef",
    "resources",
    "startDeadlineSeconds",
    "activeDeadlineSeconds",
    "desiredState",
    "jobUID",
}
OF_THE_REQUEST_ALONE = {"pool"}
LIMITS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "maxProperties")


def schema_of(plural: str) -> Schema:
    schema: Schema = version_of(plural)["schema"]["openAPIV3Schema"]
    return schema


def version_of(plural: str) -> Schema:
    (version,) = DEFINITIONS[plural]["spec"]["versions"]
    assert isinstance(version, dict)
    return version


# --- The request, read as a structural schema would say it ------------------------------------


def structural(schema: Schema, root: Schema) -> Schema | None:
    """
    A pydantic schema without references and unions, as a CRD has to write it; None for secrets.

    A union of objects becomes one object with the fields of all of them, which is what kinds come
    down to; `kind file` belongs to the one-machine engine and is left out.
    """
    if "$ref" in schema:
        return structural(root["$defs"][schema["$ref"].rpartition("/")[2]], root)
    if schema.get("writeOnly"):
        return None
    either: list[Schema] = schema.get("anyOf") or schema.get("oneOf") or []
    branches = [branch for branch in either if branch.get("type") != "null"]
    if branches:
        return union([structural(branch, root) for branch in branches])
    if "properties" in schema:
        properties = {
            name: inner
            for name, field in schema["properties"].items()
            if (inner := structural(field, root)) is not None
        }
        return {**schema, "properties": properties}
    if "items" in schema:
        items = structural(schema["items"], root)
        assert items is not None
        return {**schema, "items": items}
    if isinstance(schema.get("additionalProperties"), dict):
        inner = structural(schema["additionalProperties"], root)
        return None if inner is None else {**schema, "additionalProperties": inner}
    return schema


def union(branches: list[Schema | None]) -> Schema | None:
    seen = [branch for branch in branches if branch is not None]
    if not seen or len(seen) == 1:
        return seen[0] if seen else None
    if {branch.get("type") for branch in seen} == {"string", "integer"}:
        (text,) = (branch for branch in seen if branch["type"] == "string")
        return {"x-kubernetes-int-or-string": True, "pattern": text["pattern"]}
    merged: Schema = {"type": "object", "properties": {}}
    for branch in seen:
        if branch["properties"]["kind"].get("const") == "file":
            continue
        for name, field in branch["properties"].items():
            known = merged["properties"].get(name, field)
            merged["properties"][name] = (
                {"type": "string", "enum": [*values(known), *values(field)]}
                if name == "kind"
                else known
            )
    return merged


def values(schema: Schema) -> list[str]:
    return list(schema.get("enum", [schema["const"]] if "const" in schema else []))


def fields(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    """Every field with its path, depth first."""
    for name, field in schema.get("properties", {}).items():
        yield f"{path}/{name}", field
        yield from fields(field, f"{path}/{name}")
    if "items" in schema:
        yield f"{path}/*", schema["items"]
        yield from fields(schema["items"], f"{path}/*")


REQUESTED = JobSpec.model_json_schema()
WANTED_SCHEMA = structural(REQUESTED, REQUESTED)
assert WANTED_SCHEMA is not None
WANTED = {
    path: field
    for path, field in fields(WANTED_SCHEMA)
    if path.split("/")[1] not in OF_THE_REQUEST_ALONE
}
GIVEN = {
    path: field
    for path, field in fields(schema_of("transcodejobs")["properties"]["spec"])
    if path.split("/")[1] not in OF_THE_RESOURCE_ALONE
}
# Where a schema of JSON cannot say what the model checks, the resource may say more.
STRICTER = {
    "/source/url",
    "/source/endpoint",
    "/source/path",
    "/outputs/*/watermark/source/url",
    "/outputs/*/watermark/source/endpoint",
    "/outputs/*/watermark/source/path",
    "/outputs/*/destination/url",
    "/outputs/*/destination/endpoint",
    "/outputs/*/destination/path",
    "/notificationUrl",
}


def test_the_resource_has_every_field_of_the_request_that_is_no_secret() -> None:
    # The bytes of an inline source are in the database; the resource only says how many there are.
    assert set(GIVEN) == set(WANTED) - {"/source/data", "/outputs/*/watermark/source/data"}


@pytest.mark.parametrize("path", sorted(GIVEN))
def test_a_field_has_the_same_type_and_the_same_values(path: str) -> None:
    given, want = GIVEN[path], WANTED[path]
    assert given.get("type") == want.get("type")
    assert set(values(given)) == set(values(want))
    assert given.get("x-kubernetes-int-or-string") == want.get("x-kubernetes-int-or-string")


@pytest.mark.parametrize("path", sorted(GIVEN))
def test_a_field_has_the_same_limits(path: str) -> None:
    given, want = dict(GIVEN[path]), dict(WANTED[path])
    if given.pop("exclusiveMinimum", False):
        given["exclusiveMinimum"] = given.pop("minimum")
    if want.get("maxLength") == 65_536:  # the bound of every text; the pattern says the real one
        del want["maxLength"]
        given.pop("maxLength", None)
    if path not in STRICTER:
        assert given.get("pattern") == want.get("pattern")
    if given.get("x-kubernetes-int-or-string"):
        return
    if values(want):
        given.pop("maxLength", None)
    limits = (*LIMITS, "exclusiveMinimum")
    assert {name: given.get(name) for name in limits} == {name: want.get(name) for name in limits}


def test_no_credential_has_a_place_in_the_resource() -> None:
    secret = re.compile(r"(?i)key|secret|token|password|user|header")
    named = {path for path in GIVEN if secret.search(path.rpartition("/")[2])}
    assert named == {"/outputs/*/destination/kmsKeyId"}  # the name of a key


def test_signing_parameters_are_the_same_ones_that_are_redacted() -> None:
    rules = [rule for rule in rules_of("transcodejobs") if "signed URL" in rule["message"]]
    assert len(rules) == 4  # the source's, a watermark's, a destination's, the webhook's
    pattern = SECRET_QUERY_PARAMETERS.pattern.removeprefix("(?i)")
    assert all(f"(?i)[?&]{pattern}=" in rule["rule"] for rule in rules)


@given(REQUESTS)
def test_the_public_form_of_every_request_fits_the_resource(request: dict[str, Any]) -> None:
    """The operator copies a job into its resource: patterns must take what redaction leaves."""
    assume(all(place["kind"] != "file" for place in places_of(request)))
    public, _ = split_secrets(JobSpec.model_validate(request))
    spec = without_secrets(public)
    spec["poolRef"] = {"name": spec.pop("pool")}
    check(schema_of("transcodejobs")["properties"]["spec"], spec)
    signed = GIVEN["/source/url"]["x-kubernetes-validations"][0]["rule"].split("'")[1]
    assert not any(re.search(signed, url) for url in urls(spec))


def without_secrets(document: Any) -> Any:
    if isinstance(document, dict):
        return {
            name: without_secrets(value)
            for name, value in document.items()
            if value != {"set": True} and name != "headers"
        }
    return [without_secrets(item) for item in document] if isinstance(document, list) else document


def urls(document: Any) -> Iterator[str]:
    if isinstance(document, str) and "://" in document:
        yield document
    for inner in document.values() if isinstance(document, dict) else ():
        yield from urls(inner)
    for inner in document if isinstance(document, list) else ():
        yield from urls(inner)


def check(schema: Schema, document: Any) -> None:
    """Validate as an API server would, as far as plain JSON Schema goes; unknown fields refused."""
    Draft202012Validator(modern(schema)).validate(document)


def modern(schema: Any) -> Any:
    """OpenAPI 3.0 as JSON Schema of 2020-12: exclusive bounds are numbers, objects are closed."""
    if isinstance(schema, list):
        return [modern(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    changed = {name: modern(value) for name, value in schema.items()}
    if changed.get("exclusiveMinimum") is True:
        changed["exclusiveMinimum"] = changed.pop("minimum")
    if changed.get("x-kubernetes-int-or-string"):
        changed["type"] = ["integer", "string"]
    if changed.get("type") == "object" and isinstance(changed.get("properties"), dict):
        changed.setdefault("additionalProperties", False)
    return changed


def test_the_originals_request_is_a_resource_once_its_credentials_are_gone() -> None:
    public, _ = split_secrets(JobSpec.model_validate(ORIGINAL))
    spec = without_secrets(public)
    spec["poolRef"] = {"name": spec.pop("pool")}
    check(schema_of("transcodejobs")["properties"]["spec"], spec)


# --- What the API server demands of every definition -------------------------------------------


def nodes(schema: Schema, path: str = "") -> Iterator[tuple[str, Schema]]:
    yield path, schema
    for name, field in schema.get("properties", {}).items():
        yield from nodes(field, f"{path}/{name}")
    for below in ("items", "additionalProperties"):
        if isinstance(schema.get(below), dict):
            yield from nodes(schema[below], f"{path}/*")


def rules_of(plural: str) -> list[dict[str, str]]:
    return [
        rule
        for _, node in nodes(schema_of(plural))
        for rule in node.get("x-kubernetes-validations", [])
    ]


NODES = [
    pytest.param(node, id=f"{plural}{path}")
    for plural in DEFINITIONS
    for path, node in nodes(schema_of(plural))
]
ALLOWED = {
    "type", "format", "description", "default", "enum", "pattern", "required", "properties",
    "items", "additionalProperties", "exclusiveMinimum", *LIMITS, "x-kubernetes-validations",
    "x-kubernetes-list-type", "x-kubernetes-list-map-keys", "x-kubernetes-int-or-string",
    "x-kubernetes-preserve-unknown-fields",
}  # fmt: skip


@pytest.mark.parametrize("node", NODES)
def test_a_schema_is_structural(node: Schema) -> None:
    assert set(node) <= ALLOWED
    assert ("type" in node) != (node.get("x-kubernetes-int-or-string") is True)
    assert set(node.get("required", [])) <= set(node.get("properties", {}))


@pytest.mark.parametrize("node", NODES)
def test_lists_and_texts_are_bounded_and_lists_say_how_they_merge(node: Schema) -> None:
    """Without bounds an API server assumes the worst and refuses the rules as too costly."""
    if node.get("type") == "array":
        assert "maxItems" in node
        assert node["x-kubernetes-list-type"] in {"atomic", "map"}
        keys = node.get("x-kubernetes-list-map-keys", [])
        assert set(keys) <= set(node["items"].get("required", []))
    if node.get("type") == "object" and "additionalProperties" in node:
        assert "maxProperties" in node


@pytest.mark.parametrize("plural", DEFINITIONS)
def test_kubectl_can_apply_it(plural: str) -> None:
    """It keeps all that it applied in an annotation, and annotations have 256 KiB in all."""
    assert len(json.dumps(DEFINITIONS[plural])) < 128 * 1024


@pytest.mark.parametrize("plural", DEFINITIONS)
def test_every_rule_has_a_sentence_that_says_what_to_do(plural: str) -> None:
    for rule in rules_of(plural):
        assert set(rule) == {"rule", "message"}
        assert not rule["message"].endswith(".")
        assert rule["rule"].count("(") == rule["rule"].count(")")


@pytest.mark.parametrize("plural", DEFINITIONS)
def test_every_field_and_every_column_explains_itself(plural: str) -> None:
    """`kubectl explain` is the reference at a terminal."""
    schema = schema_of(plural)["properties"]
    silent = {
        f"{part}{path}"
        for part in ("spec", "status")
        for path, field in [("", schema[part]), *fields(schema[part])]
        if not field.get("description") and not path.endswith("/*")
    }
    columns = version_of(plural)["additionalPrinterColumns"]
    assert silent | {c["name"] for c in columns if not c.get("description")} == set()


# --- What people and programs see ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("plural", "short", "columns"),
    [
        (
            "transcodejobs",
            "tj",
            ["Succeeded", "Reason", "Pool", "Progress", "Attempt", "Age"],
        ),
        (
            "transcodepools",
            "tp",
            ["Max", "Active", "Pending", "Queued", "Oldest", "Stop", "Ready", "Age"],
        ),
    ],
)
def test_kubectl_get(plural: str, short: str, columns: list[str]) -> None:
    definition = DEFINITIONS[plural]["spec"]
    assert definition["names"]["shortNames"] == [short]
    assert definition["names"]["categories"] == ["all", "transcode"]
    assert columns_of(plural) == columns


def columns_of(plural: str) -> list[str]:
    """What is shown without `-o wide`."""
    columns = version_of(plural)["additionalPrinterColumns"]
    return [column["name"] for column in columns if not column.get("priority")]


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.name) for page in (ROOT / "README.md", *DOCS.glob("*.md"))]
)
def test_what_a_page_shows_of_kubectl_is_what_kubectl_shows(page: Path) -> None:
    text = page.read_text()
    for line in re.findall(r"^NAME +SUCCEEDED .*$", text, re.MULTILINE):
        assert line.split()[1:] == [column.upper() for column in columns_of("transcodejobs")]
    for block in re.findall(r"^```yaml\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        for document in yaml.safe_load_all(block):
            if document["apiVersion"] == f"{names.GROUP}/{names.VERSION}":
                check(
                    schema_of(f"{document['kind'].lower()}s")["properties"]["spec"],
                    document["spec"],
                )


@pytest.mark.parametrize("plural", DEFINITIONS)
def test_columns_and_selectable_fields_point_at_fields_that_exist(plural: str) -> None:
    known = {path.replace("/", ".") for path, _ in nodes(schema_of(plural))}
    paths = [
        column["jsonPath"]
        for column in version_of(plural)["additionalPrinterColumns"]
        if not column["jsonPath"].startswith(".metadata.")
    ] + [field["jsonPath"] for field in version_of(plural)["selectableFields"]]
    for path in paths:
        assert re.sub(r"\[\?\(.*\)\]", ".*", path) in known


@pytest.mark.parametrize("plural", DEFINITIONS)
def test_group_and_version_are_those_of_the_names_module(plural: str) -> None:
    definition = DEFINITIONS[plural]
    assert definition["metadata"]["name"] == f"{plural}.{names.GROUP}"
    assert definition["spec"]["group"] == names.GROUP
    assert version_of(plural)["name"] == names.VERSION
    assert version_of(plural)["subresources"]["status"] == {}


def test_a_pool_is_scaled_by_its_limit() -> None:
    assert version_of("transcodepools")["subresources"]["scale"] == {
        "specReplicasPath": ".spec.maxConcurrency",
        "statusReplicasPath": ".status.active",
        "labelSelectorPath": ".status.selector",
    }


def test_a_status_uses_the_words_of_the_record() -> None:
    status = schema_of("transcodejobs")["properties"]["status"]["properties"]
    output, attempt = status["outputs"]["items"], status["attempts"]["items"]
    assert output["properties"]["status"]["enum"] == list(OutputStatus)
    assert attempt["properties"]["status"]["enum"] == list(AttemptStatus)
    assert attempt["properties"]["budget"]["enum"] == list(Budget)


def test_a_secret_with_credentials_has_the_prefix_that_the_code_demands() -> None:
    spec = schema_of("transcodejobs")["properties"]["spec"]["properties"]
    name = spec["credentialsSecretRef"]["properties"]["name"]
    assert name["pattern"].startswith(f"^{names.CREDENTIALS_PREFIX}")


def quantities(node: Any) -> Iterator[Schema]:
    if isinstance(node, dict):
        if node.get("x-kubernetes-int-or-string") and "numkMGTPE" in node.get("pattern", ""):
            yield node
        for child in node.values():
            yield from quantities(child)


@pytest.mark.parametrize("plural", DEFINITIONS)
def test_the_operator_reads_every_quantity_that_a_schema_takes(plural: str) -> None:
    [schema] = {str(found): found for found in map(unnamed, quantities(schema_of(plural)))}.values()

    @given(st.from_regex(schema["pattern"], fullmatch=True))
    def reads(text: str) -> None:
        assume(len(text) <= schema["maxLength"])
        assert parse_bytes(text) >= 0

    reads()
    for text in ("1e1.5", "1e1000000", "-1", "Inf", "2 Gi"):
        assert re.fullmatch(schema["pattern"], text) is None


def unnamed(schema: Schema) -> Schema:
    return {key: value for key, value in schema.items() if key != "description"}
