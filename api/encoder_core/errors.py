"""
The tree of errors that our own code raises.

    EncoderError
    ├── JobError              carries a failure of the catalogue: ends an attempt or an output
    ├── InvalidRequest        one or more fields of a request are wrong: a 4xx with JSON pointers
    ├── Refused               the request is well formed and cannot be granted now: 404, 409, 429
    └── ConfigurationError    a setting is missing or wrong: the process does not start
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from encoder_core.failures import Failure, failure


class EncoderError(Exception):
    """The base of all of them."""


class JobError(EncoderError):
    """An attempt or an output cannot go on; `failure` says why and whether to try again."""

    def __init__(
        self,
        code: str,
        message: str | None = None,
        *,
        detail: str | None = None,
        retry_after_s: float | None = None,
    ) -> None:
        self.failure: Failure = failure(code, message, detail=detail)
        self.retry_after_s = retry_after_s
        """What the other side asked for, as with HTTP's Retry-After."""
        super().__init__(self.failure.message)

    @property
    def code(self) -> str:
        return self.failure.code


@dataclass(frozen=True, slots=True)
class FieldProblem:
    """One wrong field: where it is and what to do about it."""

    pointer: str
    code: str
    detail: str


class InvalidRequest(EncoderError):
    """One or more fields of a request are wrong."""

    def __init__(self, problems: Sequence[FieldProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(f"{p.pointer or '/'}: {p.detail}" for p in self.problems))


class Refused(EncoderError):
    """A well-formed request that cannot be granted; `code` is the problem type clients see."""

    def __init__(
        self, code: str, message: str, *, status: int, retry_after_s: float | None = None
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.retry_after_s = retry_after_s


class ConfigurationError(EncoderError):
    """A setting is missing or wrong; the message names it and says what to set."""
