"""What both servers need: a process that cannot outlive this one, a folder, a free port.

How PostgreSQL and Redis are started is in `postgres.py` and `redis.py`.
"""

import errno
import fcntl
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

HOST = "127.0.0.1"
# Below the ports that systems give to clients: no client takes the port of a stopped server.
FREE_PORTS = range(20_000, 32_000)
BUSY_SECONDS = 1.0
# Longer than a guard takes to stop the server of a process that was killed.
STOPPING_SECONDS = 15.0
POLL_SECONDS = 0.02


class DevtoolsError(Exception):
    """What went wrong and what to do about it, in words for a terminal."""


@dataclass(frozen=True, slots=True)
class Account:
    """A user to run a command as."""

    uid: int
    gid: int


@dataclass(frozen=True, slots=True)
class Command:
    """A program with what it runs in. `descriptors` stay open in its guard, not in the program."""

    arguments: list[str]
    stop_signal: signal.Signals = signal.SIGTERM
    account: Account | None = None
    cwd: Path | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    descriptors: tuple[int, ...] = ()
    remove_if_orphaned: Path | None = None


class GuardedProcess:
    """A running command that ends with this process, even when this one is killed."""

    def __init__(
        self,
        command: Command,
        *,
        stdin: int | IO[bytes] | None = None,
        output: IO[bytes] | None = None,
        new_session: bool = False,
        process_group: int | None = None,
    ) -> None:
        self._owner, theirs = socket.socketpair()
        with theirs, _signals_blocked():
            self._guard = subprocess.Popen(
                _guard_arguments(command, theirs.fileno()),
                stdin=stdin,
                stdout=output,
                stderr=output,
                env=command.environment,
                cwd=command.cwd,
                start_new_session=new_session,
                process_group=process_group,
                pass_fds=(theirs.fileno(), *command.descriptors),
            )
        try:
            reply = self._owner.recv(1024).decode()
        except BaseException:
            self.stop()
            raise
        if not reply.isdecimal():
            self.stop()
            raise DevtoolsError(f"Cannot start {reply or command.arguments[0]}")
        self.pid = int(reply)

    @property
    def running(self) -> bool:
        return self._guard.poll() is None

    def wait(self) -> int:
        return self._guard.wait()

    def stop(self) -> int:
        with suppress(OSError):  # it has ended, or was stopped before
            self._owner.sendall(b"stop")
        self._owner.close()
        return self._guard.wait()


@contextmanager
def _signals_blocked() -> Iterator[None]:
    # The guard inherits this, and is not interrupted before it is ready to be.
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _guard_arguments(command: Command, descriptor: int) -> list[str]:
    # By path and isolated: whatever the caller's sys.path and environment are, and in milliseconds.
    arguments = [sys.executable, "-I", "-S", str(Path(__file__).with_name("_guard.py"))]
    arguments += [f"--socket={descriptor}", f"--stop-signal={command.stop_signal.value}"]
    if command.account is not None:
        arguments += [f"--uid={command.account.uid}", f"--gid={command.account.gid}"]
    if command.remove_if_orphaned is not None:
        arguments.append(f"--remove-if-orphaned={command.remove_if_orphaned}")
    return [*arguments, "--", *command.arguments]


@contextmanager
def exclusive(folder: Path) -> Iterator[int]:
    """Keeps `folder` for this process, and for each guard that is given the descriptor."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise DevtoolsError(
            f"Cannot write {error.filename}: {error.strerror}. Choose another folder (--data), or"
            f" delete {folder} if another user made it."
        ) from error
    try:
        _lock(descriptor, folder)
        yield descriptor
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path) -> None:
    started = time.monotonic()
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            holder = os.pread(descriptor, 32, 0).decode()
            patience = BUSY_SECONDS if _is_alive(holder) else STOPPING_SECONDS
            if time.monotonic() - started > patience:
                raise DevtoolsError(
                    f"{folder} is in use: process {holder} runs a server with it."
                    f" Use that one, stop it (kill {holder}), or choose another folder (--data)."
                ) from None
            time.sleep(POLL_SECONDS)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)


def _is_alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    except (PermissionError, ValueError):  # of another user; not written yet
        return True
    return True


def free_port(preferred: int | None) -> int:
    """The preferred port if nothing listens there, else one that is free."""
    if preferred is not None and is_free(preferred):
        return preferred
    while True:
        port = secrets.choice(FREE_PORTS)
        if is_free(port):
            return port


def is_free(port: int) -> bool:
    # On macOS a port that is bound on all addresses can be bound again: connecting finds that out.
    with socket.socket() as probe:
        probe.settimeout(1)
        if probe.connect_ex((HOST, port)) == 0:
            return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            if error.errno in {errno.EADDRINUSE, errno.EACCES}:
                return False
            raise
    return True
