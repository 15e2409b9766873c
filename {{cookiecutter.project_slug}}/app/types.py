"""Types of fields that several resources share."""

from typing import Annotated

from pydantic import StringConstraints

# PostgreSQL cannot store a NUL in text.
Text = Annotated[
    str,
    StringConstraints(strip_whitespace=True, min_length=1, max_length=200, pattern=r"^[^\x00]*$"),
]
