"""What there is to say of one output while it is decided: wrong fields, and warnings."""

from __future__ import annotations

from collections.abc import Set

from encoder_core.errors import FieldProblem, InvalidRequest
from encoder_core.failures import Warned


class Notes:
    """What there is to say of one output while it is being planned."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.problems: list[FieldProblem] = []
        self.warnings: list[Warned] = []
        self._below = ""
        self._own: frozenset[str] = frozenset()

    def of_rendition(self, number: int, given: Set[str]) -> Notes:
        """The same notes, with the fields that a rendition has itself placed inside of it."""
        notes = Notes(self.index)
        notes.problems, notes.warnings = self.problems, self.warnings
        notes._below, notes._own = f"/renditions/{number}", frozenset(given)
        return notes

    def refuse(self, field: str, code: str, detail: str) -> None:
        problem = FieldProblem(self._pointer(field), code, detail)
        if problem not in self.problems:  # renditions share what they take from their output
            self.problems.append(problem)

    def warn(self, code: str, message: str, field: str | None = None) -> None:
        pointer = None if field is None else self._pointer(field)
        warning = Warned(code=code, message=message, output=self.index, pointer=pointer)
        if warning not in self.warnings:
            self.warnings.append(warning)

    def _pointer(self, field: str) -> str:
        inside = self._below if field in self._own or not field else ""
        return f"/outputs/{self.index}{inside}{_pointer(field)}"


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
