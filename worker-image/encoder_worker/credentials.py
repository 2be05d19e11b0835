"""
Credentials that were mounted beside the order: one file a field, named by its path with dots.

They belong to jobs applied with kubectl. The kubelet mounts them, so only this process and who may
read the Secret ever see them.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, get_args

from pydantic import BaseModel, SecretStr, ValidationError

from encoder_core.errors import JobError
from encoder_core.reports import WorkOrder

FILE_BYTES: Final = 65_536  # far above the longest credential, and no way to fill the memory


def read_credentials(folder: Path) -> dict[str, str]:
    """
    The values by key. Raises OSError, or JobError that names the key.

    A line end is no part of a credential, and most ways to make a Secret from a file add one.
    """
    found: dict[str, str] = {}
    # What begins with two dots is the kubelet's: it swaps a link when the Secret changes.
    for path in sorted(p for p in folder.iterdir() if not p.name.startswith("..")):
        with path.open("rb") as file:
            data = file.read(FILE_BYTES + 1)
        try:
            found[path.name] = data.decode().rstrip("\r\n")
        except UnicodeDecodeError:
            raise _refuse(f"The value of {path.name} is not text.") from None
        if len(data) > FILE_BYTES:
            raise _refuse(f"The value of {path.name} is too long.")
    return found


def add_credentials(order: WorkOrder, credentials: Mapping[str, str]) -> WorkOrder:
    """
    The order with the credentials in their fields, validated like any other.

    Raises JobError `request_impossible`, which names keys and fields and never a value.
    """
    if not credentials:
        return order
    document = order.to_json_with_secrets()
    for key, value in credentials.items():
        _put(document, order, key, value)
    try:
        return WorkOrder.model_validate(document)
    except ValidationError as error:
        raise _refuse(f"{_explain(error, order)}.") from None


def _put(document: dict[str, Any], order: WorkOrder, key: str, value: str) -> None:
    match key.split("."):
        case ["source", *path]:
            _set(document["source"], order.source, path, key, value)
        case ["outputs", number, *path] if number.isdecimal():
            places = {output.index: place for place, output in enumerate(order.outputs)}
            place = places.get(int(number))
            if place is None and order.attempt > 1:
                return  # an earlier attempt delivered it
            if place is None:
                raise _unknown(key)
            spec, output = document["outputs"][place]["spec"], order.outputs[place].spec
            match path:
                case ["destination", *path]:
                    _set(spec["destination"], output.destination, path, key, value)
                case ["watermark", "source", *path] if output.watermark is not None:
                    _set(spec["watermark"]["source"], output.watermark.source, path, key, value)
                case _:
                    raise _unknown(key)
        case _:
            raise _unknown(key)


def _set(document: dict[str, Any], model: BaseModel, path: list[str], key: str, value: str) -> None:
    """Only fields that may be secret; a URL may, with a login or a signature in it."""
    if not path:
        raise _unknown(key)
    name, *rest = path
    kinds = {
        info.alias or field: info.annotation for field, info in type(model).model_fields.items()
    }
    kind = kinds.get(name)
    is_table = _holds(kind, dict)
    if not _holds(kind, SecretStr) or is_table != bool(rest):
        raise _unknown(key)
    if is_table:
        # The name of a header may have dots itself.
        document.setdefault(name, {})[".".join(rest)] = value
    else:
        document[name] = value


def _holds(annotation: Any, kind: type) -> bool:
    """Whether a value of this annotation may be, or may contain, one of that kind."""
    if annotation is kind:
        return True
    return getattr(annotation, "__origin__", None) is kind or any(
        _holds(part, kind) for part in get_args(annotation)
    )


def _explain(error: ValidationError, order: WorkOrder) -> str:
    """The first problem, with the field as the job calls it."""
    problem = error.errors(include_url=False, include_context=False, include_input=False)[0]
    match problem["loc"]:
        case ("source", _kind, *path):
            where = ["source", *path]
        case ("outputs", int(place), "spec", "destination", _kind, *path):
            where = ["outputs", order.outputs[place].index, "destination", *path]
        case ("outputs", int(place), "spec", "watermark", "source", _kind, *path):
            where = ["outputs", order.outputs[place].index, "watermark", "source", *path]
        case other:
            where = list(other)
    field = ".".join(str(part) for part in where)
    return f"{field}: {problem['msg'].removeprefix('Value error, ')}"


def _unknown(key: str) -> JobError:
    return _refuse(f"{key} names no credential of the source, a destination or a watermark.")


def _refuse(message: str) -> JobError:
    return JobError("request_impossible", f"In the Secret of credentialsSecretRef: {message}")
