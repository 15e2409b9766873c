"""Resources are served because they are there."""

import sys
from pathlib import Path

import pytest

import app
from app import resources
from app.main import create_app
from app.settings import Settings


@pytest.mark.parametrize("files", [["__init__.py"], []])
def test_a_folder_with_a_router_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: Settings, files: list[str]
) -> None:
    package = tmp_path / "planets"
    package.mkdir()
    for file in files:
        (package / file).touch()
    (package / "router.py").write_text(
        "from fastapi import APIRouter\n"
        "router = APIRouter(prefix='/planets')\n"
        "@router.get('')\n"
        "async def list_planets() -> list[str]: return []\n"
    )
    monkeypatch.setattr(app, "__path__", [*app.__path__, str(tmp_path)])
    try:
        assert "/planets" in create_app(settings).openapi()["paths"]
    finally:
        for name in [name for name in sys.modules if name.startswith("app.planets")]:
            del sys.modules[name]


def test_every_router_is_included_once() -> None:
    routers = resources.routers()
    assert len(routers) == len({id(router) for router in routers})
