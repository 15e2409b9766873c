"""Resources are found, not listed: `router` of each `app/…/router.py` is served, and each
`app/…/models.py` is known to migrations.

Why: a resource comes and goes as one folder, and no file is edited by all who add one.
"""

from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import ModuleType

from fastapi import APIRouter

import app


def routers() -> list[APIRouter]:
    return [module.router for module in _modules("router")]


def import_models() -> None:
    """Register all tables with `Base.metadata`."""
    for _ in _modules("models"):
        pass


def _modules(name: str) -> Iterator[ModuleType]:
    # Files: pkgutil would leave a folder without __init__.py out, silently.
    for folder in map(Path, app.__path__):
        for file in sorted(folder.rglob(f"{name}.py")):
            yield import_module(".".join(["app", *file.relative_to(folder).with_suffix("").parts]))
