"""Resources are found, not listed: a package below `app/` with a module `router` is served, and one
with a module `models` is known to migrations. To add or remove one, add or remove its package.
"""

from collections.abc import Iterator
from importlib import import_module
from pkgutil import walk_packages
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
    for module in walk_packages(app.__path__, prefix="app."):
        if module.name.endswith(f".{name}"):
            yield import_module(module.name)
