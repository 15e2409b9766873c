"""The Makefiles, as far as they can be tried without installing anything."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from generated import TEMPLATE, Service, environment


@pytest.fixture(params=["template", "service"])
def folder(request: pytest.FixtureRequest, service: Service) -> Path:
    return TEMPLATE if request.param == "template" else service.root


def test_help_comes_first_and_lists_what_can_be_done(folder: Path) -> None:
    shown = make(folder)

    targets = re.findall(r"^([a-z-]+):", (folder / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    listed = re.findall(r"^  ([a-z-]+) +\S", shown.stdout, re.MULTILINE)
    assert shown.returncode == 0
    assert set(listed) == set(targets) - {"setup", "baked", "peers", "workshop"}


def test_a_python_that_is_too_old_is_refused_with_a_way_out(folder: Path) -> None:
    # It answers every question with no, as an old one does.
    refused = make(folder, "test", "PYTHON=false")

    assert refused.returncode != 0
    assert "Python 3.11 or later is needed, and false is not." in refused.stderr
    assert "make PYTHON=python3.13" in refused.stderr


def test_code_is_formatted_although_something_is_left_to_do_by_hand(
    generate: Callable[..., Service],
) -> None:
    service = generate()
    (service.root / "app" / "odd.py").write_text("import sys\nvalue = ( unknown )\n", encoding="utf-8")

    formatted = make(service.root, "format", "--assume-old=setup", f"RUN={sys.executable} -m")

    assert formatted.returncode != 0
    assert "F821" in formatted.stdout
    assert service.text("app/odd.py") == "value = unknown\n"


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["make", *arguments], cwd=folder, env=environment(), capture_output=True, text=True, timeout=60
    )
