"""A generated service, with the verbs that the tests use on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

TEMPLATE = Path(__file__).resolve().parent.parent
SERVICE_SOURCE = TEMPLATE / "{{cookiecutter.project_slug}}"
TIMEOUT_SECONDS = 900
# What running things leaves behind; no part of what was generated.
LEFT_BY_RUNNING = {
    ".dev",
    ".import_linter_cache",
    ".mypy_cache",
    ".pytest_cache",
    ".ruff_cache",
    ".tools",
    ".venv",
    "__pycache__",
}


@dataclass(frozen=True)
class Service:
    root: Path

    def files(self, pattern: str = "*") -> list[Path]:
        """Paths relative to the root, in a stable order."""
        return sorted(path.relative_to(self.root) for path in walk(self.root) if path.match(pattern))

    def text(self, path: str | Path) -> str:
        return (self.root / path).read_text(encoding="utf-8")

    def remove(self, *paths: str) -> None:
        for path in paths:
            target = self.root / path
            if target.is_dir():
                shutil.rmtree(target)
            else:
                target.unlink()

    def make(self, *arguments: str, **variables: str) -> str:
        return run("make", f"UV={uv()}", *arguments, cwd=self.root, **variables)


def walk(folder: Path) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name in LEFT_BY_RUNNING:
            continue
        if entry.is_dir():
            yield from walk(entry)
        else:
            yield entry


def run(*command: str, cwd: Path, **variables: str) -> str:
    """Run a command as a user would; give what it printed, which is also what a failure shows."""
    try:
        done = subprocess.run(
            command,
            cwd=cwd,
            env=environment(**variables),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_SECONDS,
        )
    except subprocess.TimeoutExpired as expired:
        output = (
            expired.output.decode(errors="replace") if isinstance(expired.output, bytes) else expired.output
        )
        raise AssertionError(f"{' '.join(command)}: not done in {TIMEOUT_SECONDS} s\n{output}") from None
    assert done.returncode == 0, f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}"
    return done.stdout


def environment(**variables: str) -> dict[str, str]:
    """The user's environment, without what this test run added to it."""
    ours = ("VIRTUAL_ENV", "UV", "UV_RUN_RECURSION_DEPTH", "MAKEFLAGS", "MAKELEVEL", "MFLAGS", "PYTEST_ARGS")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    # `uv run` put this environment's own programs first.
    own = os.fspath(Path(sys.executable).parent)
    kept["PATH"] = os.pathsep.join(part for part in kept["PATH"].split(os.pathsep) if part != own)
    return kept | variables


def uv() -> str:
    """The uv that runs these tests, so that no generated service has to install its own."""
    found = os.environ.get("UV") or shutil.which("uv")
    assert found, "uv is needed: run the tests with `make test`"
    return found
