"""`python -m devtools`: PostgreSQL and Redis for development, and what runs with them.

No server is started when DATABASE_URL or CACHE_URL names one. The command takes the place of this
process: signals and the terminal are its own, and the servers end when it does.
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from dotenv import dotenv_values

from devtools import DevtoolsError, postgres_server, redis_server
from devtools.servers import HOST, free_port

# Everybody knows it: production refuses it, and here only this machine can connect.
DEVELOPMENT_TOKEN = "local-development-only"
ALEMBIC = [sys.executable, "-m", "alembic"]


def main(arguments: list[str]) -> int:
    # argparse would take the options of COMMAND for its own.
    split = arguments.index("--") if "--" in arguments else len(arguments)
    options, command = _parser().parse_args(arguments[:split]), arguments[split + 1 :]
    try:
        if options.name == "migration":
            return migration(options.message)
        with servers(options.data) as environment:
            if options.name == "run":
                command = application(options, environment)
            if command:
                become(command, environment)
            say("Ctrl-C ends them.")
            signal.pause()
    except (DevtoolsError, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        pass
    return 0


@contextmanager
def servers(data: Path) -> Iterator[dict[str, str]]:
    """The environment of what runs with them."""
    environment = dict(os.environ)
    with ExitStack() as stack:
        for variable, starting in (
            ("DATABASE_URL", postgres_server(data / "postgres", port=5432)),
            ("CACHE_URL", redis_server(data / "redis", port=6379)),
        ):
            if environment.get(variable):
                say(f"{variable} is set: that server is not started.")
            else:
                server = stack.enter_context(starting)
                environment[variable] = server.url
                say(f"{variable}={server.url} (log: {server.log})")
        yield environment


def application(options: argparse.Namespace, environment: dict[str, str]) -> list[str]:
    """Migrates, and gives the command that runs the application with reload."""
    if subprocess.run([*ALEMBIC, "upgrade", "head"], env=environment, check=False).returncode:
        raise DevtoolsError(
            "The migrations failed, so the application is not started. If the database knows a"
            f" revision that migrations/ lacks, delete {options.data / 'postgres'} to begin anew."
        )
    port = free_port(options.port)
    if port != options.port:
        say(f"Port {options.port} is taken; the application uses {port}.")
    say(f"\nThe API and its documentation, in a moment: http://{HOST}:{port}/docs\n")
    if Path("app", "countries").is_dir():
        curl = f"  curl -i 'http://{HOST}:{port}/countries?limit=20'"
        say(f"{curl}   # first: a miss\n{curl}   # second: a hit (look at Cache-Status)\n")
    has_token = environment.get("API_TOKEN") or dotenv_values(".env").get("API_TOKEN")
    if not has_token and "UVICORN_HOST" not in environment:
        environment["API_TOKEN"] = DEVELOPMENT_TOKEN
    # Only app/ is watched: saving a test does not restart the service.
    watch = ["--reload", "--reload-dir", "app"]
    return [sys.executable, "-m", "uvicorn", "app.main:app", *watch, "--port", str(port)]


def become(command: list[str], environment: dict[str, str]) -> None:
    try:
        os.execvpe(command[0], command, environment)
    except OSError as error:
        raise DevtoolsError(f"Cannot run {command[0]}: {error.strerror}") from error


def migration(message: str) -> int:
    """Writes what the models have and the migrations lack, on a database that is thrown away."""
    code = 0
    with (
        tempfile.TemporaryDirectory(prefix="devtools-") as folder,
        postgres_server(Path(folder), durable=False) as server,
    ):
        environment = os.environ | {"DATABASE_URL": server.url, "CACHE_URL": "memory://"}
        for command in (["upgrade", "head"], ["revision", "--autogenerate", "-m", message]):
            code = code or subprocess.call([*ALEMBIC, *command], env=environment)
    return code


def say(line: str) -> None:
    print(line, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m devtools", description=__doc__)
    names = parser.add_subparsers(dest="name", required=True)
    up = names.add_parser("up", help="start both, and run what follows --, or wait for Ctrl-C")
    run = names.add_parser("run", help="start both, migrate, run the application with reload")
    for command in (up, run):
        command.add_argument("--data", type=Path, default=Path(".dev"), help="default: .dev")
    run.add_argument("--port", type=int, default=os.environ.get("PORT") or 8000)
    new = names.add_parser("migration", help="write a migration for what changed in the models")
    new.add_argument("message", help='what it does: "add cities"')
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
