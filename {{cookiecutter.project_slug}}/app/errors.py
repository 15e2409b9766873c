"""What can be wrong with what a client asks, in words of the domain.

Whoever finds it raises it, repositories above all; the text is for the client. `problems.py` knows
the status of each.
"""

from typing import TypeVar

T = TypeVar("T")


class NotFound(Exception): ...


class Conflict(Exception):
    """What is there now forbids it. Constraints of the database say so by themselves."""


class Changed(Exception):
    """Somebody changed it since the client read it."""


class Invalid(Exception):
    """A value of the body that only the database shows to be wrong."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(f"{field}: {message}")
        self.field, self.message = field, message


def found(value: T | None, otherwise: str) -> T:
    if value is None:
        raise NotFound(otherwise)
    return value
