from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cookiecutter.main import cookiecutter
from generated import TEMPLATE, Service

Answers = dict[str, Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is quick to fail comes first."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is not None)


@pytest.fixture(scope="session")
def questions() -> Answers:
    """The questions of cookiecutter.json: for each, the default or the choices."""
    context = json.loads((TEMPLATE / "cookiecutter.json").read_text(encoding="utf-8"))
    return {name: value for name, value in context.items() if not name.startswith("_")}


@pytest.fixture(scope="session")
def generate(questions: Answers, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Service]:
    """`generate(license="MIT")` writes a service of its own for the caller, on a path with a space."""
    config = tmp_path_factory.mktemp("config") / "cookiecutter.yaml"
    config.write_text(f"cookiecutters_dir: {config.parent}\nreplay_dir: {config.parent}\n", encoding="utf-8")

    def generate(**answers: str) -> Service:
        # Cookiecutter ignores names that it does not know, and a test of them would test nothing.
        assert answers.keys() <= questions.keys()
        root = cookiecutter(
            str(TEMPLATE),
            no_input=True,
            extra_context=answers,
            output_dir=str(tmp_path_factory.mktemp("a service")),
            config_file=str(config),
        )
        return Service(Path(root))

    return generate


@pytest.fixture(scope="session")
def service(generate: Callable[..., Service]) -> Service:
    """The service of the default answers. Shared: to be read only."""
    return generate()


@pytest.fixture(scope="session")
def docker() -> None:
    """Docker, or a reason not to run; never a silent skip where CI relies on it."""
    wanted = os.environ.get("TEST_SERVICES", "auto")
    if wanted in ("embedded", "external"):
        pytest.skip(f"needs Docker, and TEST_SERVICES={wanted} asks for tests without it")
    if shutil.which("docker") is None:
        problem = "docker is not on PATH"
    else:
        answer = subprocess.run(["docker", "compose", "ls", "-q"], capture_output=True, text=True, timeout=30)
        problem = answer.stderr.strip() if answer.returncode else ""
    if problem and (wanted == "docker" or os.environ.get("CI") == "true"):
        pytest.fail(f"Docker does not answer: {problem} (without it: TEST_SERVICES=embedded)")
    if problem:
        pytest.skip(f"Docker does not answer: {problem}")
