"""What both servers need: a program that cannot outlive this process, and a free port."""

import os
import random
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

HOST = "127.0.0.1"
# Below the ports that systems give to clients: no client takes the port of a stopped server.
FREE_PORTS = range(20_000, 32_000)
START_SECONDS = 60.0
STOP_SECONDS = 10.0
POLL_SECONDS = 0.02
LOG_LINES = 15
# The shell becomes the program. Its child waits for the end of a pipe from this process, which the
# kernel closes on SIGKILL, too. CONT: a test may have suspended the program.
UNTIL_THE_PIPE_ENDS = """
exec 3<&0 </dev/null
(read -r line <&3 || { kill -INT $$; kill -CONT $$; }) &
exec "$@" 3<&-
"""


class DevtoolsError(Exception):
    """What went wrong and what to do about it, in words for a terminal."""


@dataclass
class Server:
    """Started until it answers, stopped, started again; ends with this process, however that ends.

    `answers` is asked with the number of the process; `options` are those of Popen.
    """

    url: str
    command: list[str]
    log: Path
    answers: Callable[[int], bool]
    options: dict[str, Any]
    pid: int = 0
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_error: object) -> None:
        self.stop()

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        self.stop()
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", UNTIL_THE_PIPE_ENDS, "sh", *self.command],
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,  # on Ctrl-C the application drains while its servers are up
                **self.options,
            )
        self.pid = self._process.pid
        assert self._process.stdin
        # A program that this process becomes (exec) holds the pipe from then on.
        os.set_inheritable(self._process.stdin.fileno(), True)
        deadline = time.monotonic() + START_SECONDS
        while not self.answers(self.pid):
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.stop()
                lines = self.log.read_text(errors="replace").splitlines()[-LOG_LINES:]
                text = "\n  ".join([f"The end of {self.log}:", *lines])
                raise DevtoolsError(
                    f"{self.url} does not start. {text}\n"
                    f"If its data is the reason, delete {self.log.parent} to begin anew."
                )
            time.sleep(POLL_SECONDS)

    def stop(self) -> None:
        if self._process is None:
            return
        # When it has ended by itself, its number may be another's by now.
        ended = b"\n" if self._process.poll() is not None else None
        try:
            self._process.communicate(ended, STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


def started(server_on: Callable[[int], Server], preferred: int | None) -> Server:
    """The server on a free port: on another one when a process takes that before the server."""
    while True:
        port = free_port(preferred)
        server = server_on(port)
        try:
            server.start()
        except DevtoolsError:
            if _is_free(port):
                raise
        else:
            return server


def free_port(preferred: int | None = None) -> int:
    """The preferred port if nothing listens there, else one that is free."""
    for port in (preferred, *random.sample(FREE_PORTS, 100)):
        if port is not None and _is_free(port):
            return port
    raise DevtoolsError(f"No port is free on {HOST}.")


def _is_free(port: int) -> bool:
    # macOS lets a socket have one address beside another that has all of them.
    for address in (HOST, "0.0.0.0"):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except (OSError, OverflowError):
                return False
    return True


def package_folder(*names: str) -> Path:
    """That of the first package that is installed: importing them warns, and leaves files."""
    for package in map(find_spec, names):
        if package and package.origin:
            return Path(package.origin).parent
    raise DevtoolsError(f"{' or '.join(names)} is not installed: run `uv sync --group dev`.")
