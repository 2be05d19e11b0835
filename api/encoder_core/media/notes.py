"""What there is to say of one output while it is decided: wrong fields, and warnings."""

from __future__ import annotations

from encoder_core.errors import FieldProblem, InvalidRequest
from encoder_core.failures import Warned


class Notes:
    """What there is to say of one output while it is being planned."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.problems: list[FieldProblem] = []
        self.warnings: list[Warned] = []

    def refuse(self, field: str, code: str, detail: str) -> None:
        self.problems.append(FieldProblem(f"/outputs/{self.index}{_pointer(field)}", code, detail))

    def warn(self, code: str, message: str, field: str | None = None) -> None:
        pointer = None if field is None else f"/outputs/{self.index}{_pointer(field)}"
        self.warnings.append(Warned(code=code, message=message, output=self.index, pointer=pointer))


def _pointer(field: str) -> str:
    """`video_codec` and `clip/start` as they are written on the wire."""
    steps = []
    for step in field.split("/"):
        first, *rest = step.split("_")
        steps.append(first + "".join(word.title() for word in rest))
    return "".join(f"/{step}" for step in steps if step)


def stop_at_problems(notes: Notes) -> None:
    if notes.problems:
        raise InvalidRequest(notes.problems)
