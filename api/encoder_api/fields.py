"""Turn pydantic's errors into JSON pointers and sentences that say what to do. Pure."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from encoder_core.errors import FieldProblem
from encoder_core.redaction import escape_pointer

MAX_PROBLEMS: Final = 50  # enough to mend a request; a hostile one must not fill the answer
MAX_NAME: Final = 128  # a longer member name is not repeated: the pointer ends at its object

# code, sentence; {…} is filled from the error's context, which holds limits and never values.
_SENTENCES: Final[Mapping[str, tuple[str, str]]] = {
    "missing": ("required", "is required"),
    "union_tag_not_found": ("required", "is required"),
    "string_type": ("wrong_type", "must be a string"),
    "string_unicode": ("wrong_type", "must be Unicode text"),
    "string_too_short": ("too_short", "must have at least {min_length} characters"),
    "string_too_long": ("too_long", "must have at most {max_length} characters"),
    "string_pattern_mismatch": ("invalid", "must match {pattern}"),
    "int_type": ("wrong_type", "must be a whole number"),
    "int_parsing": ("wrong_type", "must be a whole number"),
    "int_parsing_size": ("out_of_range", "is far too large"),
    "int_from_float": ("wrong_type", "must be a whole number"),
    "float_type": ("wrong_type", "must be a number"),
    "float_parsing": ("wrong_type", "must be a number"),
    "finite_number": ("wrong_type", "must be a finite number"),
    "bool_type": ("wrong_type", "must be true or false"),
    "bool_parsing": ("wrong_type", "must be true or false"),
    "list_type": ("wrong_type", "must be an array"),
    "dict_type": ("wrong_type", "must be an object"),
    "model_type": ("wrong_type", "must be an object"),
    "model_attributes_type": ("wrong_type", "must be an object"),
    "datetime_type": ("wrong_type", "must be a time such as 2026-01-31T12:00:00Z"),
    "datetime_parsing": ("wrong_type", "must be a time such as 2026-01-31T12:00:00Z"),
    "datetime_from_date_parsing": ("wrong_type", "must be a time such as 2026-01-31T12:00:00Z"),
    "timezone_aware": ("invalid", "must say its zone, as in 2026-01-31T12:00:00Z"),
    "uuid_type": ("wrong_type", "must be a UUID"),
    "uuid_parsing": ("wrong_type", "must be a UUID"),
    "greater_than": ("out_of_range", "must be more than {gt}"),
    "greater_than_equal": ("out_of_range", "must be at least {ge}"),
    "less_than": ("out_of_range", "must be less than {lt}"),
    "less_than_equal": ("out_of_range", "must be at most {le}"),
    "too_short": ("too_short", "needs at least {min_length}"),
    "too_long": ("too_long", "takes at most {max_length}"),
    "literal_error": ("not_allowed", "must be one of {expected}"),
    "enum": ("not_allowed", "must be one of {expected}"),
    "union_tag_invalid": ("not_allowed", "must be one of {expected_tags}"),
}


def field_problems(error: ValidationError, model: type[BaseModel]) -> list[FieldProblem]:
    """What is wrong with which field, in the order of the model, at most `MAX_PROBLEMS`."""
    details = error.errors(include_url=False, include_input=False)
    return [_problem(detail, model) for detail in details[:MAX_PROBLEMS]]


def _problem(detail: Any, model: type[BaseModel]) -> FieldProblem:
    kind, context = detail["type"], detail.get("ctx", {})
    steps, parent = _walk(detail["loc"], model)
    if kind.startswith("union_tag"):
        steps = [*steps, str(context["discriminator"]).strip("'")]
    if kind == "extra_forbidden":
        return FieldProblem(_pointer(steps), "unknown_field", _unknown(steps[-1], parent))
    if kind == "value_error":
        # Raised by our own models, whose sentences name limits and fields and no values.
        return FieldProblem(_pointer(steps), "invalid", str(context["error"]))
    code, sentence = _SENTENCES.get(kind, ("invalid", "is not valid"))
    if detail["loc"] and detail["loc"][-1] == "[key]":
        sentence = f"has a name that {sentence}"
    return FieldProblem(_pointer(steps), code, sentence.format_map(_readable(context)))


def _readable(context: Mapping[str, Any]) -> dict[str, str]:
    return {name: _number(value).replace("'", '"') for name, value in context.items()}


def _number(value: Any) -> str:
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)


def _pointer(steps: Sequence[str | int]) -> str:
    pointer = ""
    for step in steps:
        if len(str(step)) > MAX_NAME:
            break
        pointer += "/" + escape_pointer(str(step))
    return pointer


def _unknown(name: str | int, model: type[BaseModel] | None) -> str:
    known = [alias_of(field_name, field) for field_name, field in _fields(model)]
    by_folded = {_fold(alias): alias for alias in known}
    near = difflib.get_close_matches(_fold(str(name)[:MAX_NAME]), by_folded, n=1, cutoff=0.7)
    if near:
        return f"is not known here; did you mean {by_folded[near[0]]}?"
    return f"is not known here; known are {', '.join(known)}"


def _fold(name: str) -> str:
    """`video_bitrate` and `VideoBitrate` are near `videoBitrate`."""
    return name.replace("_", "").replace("-", "").lower()


def _fields(model: type[BaseModel] | None) -> Iterator[tuple[str, FieldInfo]]:
    yield from ({} if model is None else model.model_fields).items()


def alias_of(name: str, field: FieldInfo) -> str:
    """What a field is called on the wire."""
    return field.serialization_alias or field.alias or name


def _walk(
    location: Sequence[str | int], model: type[BaseModel]
) -> tuple[list[str | int], type[BaseModel] | None]:
    """
    Follow pydantic's location through the types, dropping what is not in the document.

    pydantic names the member of a union that it tried, and `[key]` for a wrong name; only the
    types tell a tag `s3` from a field of that name. Returns the steps and the last step's model.
    """
    steps: list[str | int] = []
    here: Any = model
    tag: str | None = None  # the discriminator's name, when the next step is a tag
    parent: type[BaseModel] | None = None
    for step in location:
        if tag is not None:
            here, tag = _member(here, tag, step), None
            continue
        here = _strip(here)
        if isinstance(here, type) and issubclass(here, BaseModel):
            parent = here
            field = next((f for n, f in _fields(here) if step in (n, alias_of(n, f))), None)
            here = None if field is None else field.annotation
            tag = None if field is None else _discriminator(field)
            steps.append(step)
        elif get_origin(here) in (list, dict) and step != "[key]":
            here = get_args(here)[-1]
            tag = _discriminator_of_annotated(here)
            steps.append(step)
    return steps, parent


def _strip(annotation: Any) -> Any:
    """The one type inside `Annotated[…]` and `… | None`."""
    while True:
        if get_origin(annotation) is Annotated:
            annotation = get_args(annotation)[0]
            continue
        if get_origin(annotation) in (Union, UnionType):
            members = [member for member in get_args(annotation) if member is not type(None)]
            if len(members) == 1:
                annotation = members[0]
                continue
        return annotation


def _discriminator(field: FieldInfo) -> str | None:
    found = field.discriminator
    return found if isinstance(found, str) else _discriminator_of_annotated(field.annotation)


def _discriminator_of_annotated(annotation: Any) -> str | None:
    for data in getattr(annotation, "__metadata__", ()):
        if isinstance(data, FieldInfo) and isinstance(data.discriminator, str):
            return data.discriminator
    return None


def _member(union: Any, discriminator: str, tag: str | int) -> Any:
    """The model of a union whose discriminator can be `tag`."""
    for member in get_args(_strip(union)):
        field = member.model_fields.get(discriminator)
        if field is not None and tag in _literals(field.annotation):
            return member
    return None


def _literals(annotation: Any) -> tuple[Any, ...]:
    return get_args(annotation) if get_origin(annotation) is Literal else ()
