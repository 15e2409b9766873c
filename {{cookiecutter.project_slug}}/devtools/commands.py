"""The commands of `python -m devtools`: servers, and what runs with them.

DATABASE_URL or CACHE_URL in the environment stand for a server that is there already; none is
started then. A signal reaches the command exactly once, and the servers stop after the command.
"""

import http.client
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from dotenv import dotenv_values

from devtools.postgres import postgres_server
from devtools.processes import HOST, Command, DevtoolsError, GuardedProcess, free_port
from devtools.redis import redis_server

APP_PORT = 8000
# Everybody knows it: production refuses it, and here only this machine can connect.
DEVELOPMENT_TOKEN = "local-development-only"
HIGHEST_PORT = 65_535
LIVE_CHECK_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Services:
    """Which servers to start, and where."""

    data: Path
    postgres_port: int
    redis_port: int


def up(services: Services, command: list[str]) -> int:
    """Servers for as long as `command` runs, or until Ctrl-C."""
    with _started(services) as environment:
        if command:
            return _run(command, environment)
        with suppress(KeyboardInterrupt):
            say("Ctrl-C stops them.")
            while True:
                time.sleep(1)
    return 0


def run(services: Services) -> int:
    """The application with reload, on servers of its own, migrated."""
    preferred = _app_port()
    with _started(services) as environment:
        code = _run([sys.executable, "-m", "alembic", "upgrade", "head"], environment)
        if code != 0:
            say(f"The migrations failed (exit code {code}), so the application is not started.")
            return code
        port = free_port(preferred)
        if port != preferred:
            say(f"Port {preferred} is taken; the application uses {port}.")
        threading.Thread(target=_announce, args=[port], daemon=True).start()
        if not _has_token(environment) and "UVICORN_HOST" not in environment:
            environment["API_TOKEN"] = DEVELOPMENT_TOKEN
        # Only app/ is watched: saving a test does not restart the service.
        options = ["--reload", "--reload-dir", "app", "--port", str(port)]
        return _run([sys.executable, "-m", "uvicorn", "app.main:app", *options], environment)


def migration(message: str) -> int:
    """Writes what the models have and the migrations lack, on a database that is thrown away."""
    alembic = [sys.executable, "-m", "alembic"]
    with (
        tempfile.TemporaryDirectory(prefix="devtools-") as folder,
        postgres_server(Path(folder), durable=False) as server,
    ):
        environment = dict(os.environ) | {"DATABASE_URL": server.url}
        code = _run([*alembic, "upgrade", "head"], environment)
        if code != 0:
            return code
        return _run([*alembic, "revision", "--autogenerate", "-m", message], environment)


def say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


@contextmanager
def _started(services: Services) -> Iterator[dict[str, str]]:
    environment = dict(os.environ)
    with ExitStack() as stack:
        if environment.get("DATABASE_URL"):
            say("DATABASE_URL is set: PostgreSQL is not started.")
        else:
            folder = _ignored_folder(services.data, "postgres")
            database = stack.enter_context(postgres_server(folder, port=services.postgres_port))
            environment["DATABASE_URL"] = database.url
            where = f"(data in {folder}, log {folder / database.log.name})"
            say(f"PostgreSQL {database.version} at {database.url} {where}")
        if environment.get("CACHE_URL"):
            say("CACHE_URL is set: Redis is not started.")
        else:
            folder = _ignored_folder(services.data, "redis")
            cache = stack.enter_context(redis_server(folder, port=services.redis_port))
            environment["CACHE_URL"] = cache.url
            say(f"Redis at {cache.url} ({cache.source}, log {folder / cache.log.name})")
        yield environment


def _ignored_folder(data: Path, name: str) -> Path:
    folder = data / name
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / ".gitignore").write_text("*\n")
    except OSError as error:
        raise DevtoolsError(f"Cannot write {folder}: {error.strerror}") from error
    return folder


def _has_token(environment: Mapping[str, str]) -> bool:
    return bool(environment.get("API_TOKEN") or dotenv_values(".env").get("API_TOKEN"))


def _app_port() -> int:
    text = os.environ.get("PORT") or str(APP_PORT)
    if not text.isdecimal() or not 0 < int(text) <= HIGHEST_PORT:
        raise DevtoolsError(f"PORT is {text!r}: give a number from 1 to {HIGHEST_PORT}.")
    return int(text)


def _run(command: list[str], environment: Mapping[str, str]) -> int:
    # The terminal sends Ctrl-C to the whole foreground group, so the command has it already.
    # Elsewhere the command gets a group of its own, and its signals from here only.
    shared = _in_foreground()
    process: GuardedProcess | None = None
    early: list[int] = []

    def forward(number: int, _frame: FrameType | None) -> None:
        if process is None:
            early.append(number)
        elif not (shared and number == signal.SIGINT):
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)

    # Before the start: the command may be signalled as soon as it runs.
    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        process = GuardedProcess(
            Command(command, environment=environment), process_group=None if shared else 0
        )
        with suppress(ProcessLookupError):
            for number in early:
                os.kill(process.pid, signal.SIGTERM if shared else number)
        return process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        if process is not None:
            process.stop()


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(0) == os.getpgrp()
    except OSError:  # standard input is no terminal
        return False


def _announce(port: int) -> None:
    while not _is_live(port):
        time.sleep(LIVE_CHECK_SECONDS)
    lines = ["", f"The API and its documentation: http://{HOST}:{port}/docs", ""]
    if Path("app", "countries").is_dir():
        curl = f"curl -i 'http://{HOST}:{port}/countries?limit=20'"
        lines += [
            f"  {curl}   # first: a miss",
            f"  {curl}   # second: a hit (look at Cache-Status)",
            "",
        ]
    say("\n".join(lines))


def _is_live(port: int) -> bool:
    connection = http.client.HTTPConnection(HOST, port, timeout=1)
    try:
        connection.request("GET", "/health/live")
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
