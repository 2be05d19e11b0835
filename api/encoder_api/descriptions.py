"""What the models' authors wrote beside the fields, for the OpenAPI document."""

from __future__ import annotations

import ast
import inspect
from functools import cache

from pydantic import BaseModel


def field_descriptions(model: type[BaseModel]) -> dict[str, str]:
    """The string under each field, by the field's name, those of its bases included."""
    found: dict[str, str] = {}
    for base in reversed(model.__mro__):
        if issubclass(base, BaseModel) and base is not BaseModel:
            found |= _of_module(inspect.getsourcefile(base) or "").get(base.__qualname__, {})
    return found


@cache
def _of_module(path: str) -> dict[str, dict[str, str]]:
    if not path:
        return {}
    with open(path, encoding="utf-8") as file:
        tree = ast.parse(file.read())
    return {node.name: _of_class(node) for node in ast.walk(tree) if isinstance(node, ast.ClassDef)}


def _of_class(node: ast.ClassDef) -> dict[str, str]:
    found = {}
    for field, below in zip(node.body, node.body[1:], strict=False):
        if (
            isinstance(field, ast.AnnAssign)
            and isinstance(field.target, ast.Name)
            and isinstance(below, ast.Expr)
            and isinstance(below.value, ast.Constant)
            and isinstance(below.value.value, str)
        ):
            found[field.target.id] = inspect.cleandoc(below.value.value)
    return found
