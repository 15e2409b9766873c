"""Runs one command, and ends it when the process that asked for it is gone for whatever reason.

The asking process holds the other end of a socket: the kernel closes it even on SIGKILL, when
nothing else can clean up. To stop the command on purpose it writes a byte first. This file is run
by its path with `python -I -S`, so it imports nothing but the standard library.
"""

import argparse
import ctypes
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from types import FrameType

STOP_SECONDS = 10.0
PARENT_CHECK_SECONDS = 0.5
PR_SET_PDEATHSIG = 1


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--stop-signal", type=int, required=True)
    parser.add_argument("--uid", type=int)
    parser.add_argument("--gid", type=int)
    parser.add_argument("--remove-if-orphaned")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args()

    parent = os.getppid()
    owner = socket.socket(fileno=options.socket)
    signals = _readable_signals()
    try:
        child = _start(options.command, options.uid, options.gid, options.stop_signal)
    except OSError as error:
        owner.sendall(f"{options.command[0]}: {error.strerror}".encode())
        return 127
    owner.sendall(str(child.pid).encode())

    while child.poll() is None:
        ready, _, _ = select.select([owner, signals], [], [], PARENT_CHECK_SECONDS)
        # A fork of the parent keeps the socket open, so the parent itself is looked at as well.
        orphaned = os.getppid() != parent or (owner in ready and not _was_told(owner))
        terminated = signals in ready and not {*signals.recv(64)}.isdisjoint(
            {signal.SIGTERM, signal.SIGHUP}
        )
        if orphaned or terminated or owner in ready:
            _stop(child, options.stop_signal)
        if orphaned and options.remove_if_orphaned:
            shutil.rmtree(options.remove_if_orphaned, ignore_errors=True)
    return child.returncode if child.returncode >= 0 else 128 - child.returncode


def _readable_signals() -> socket.socket:
    """Signals as bytes of a socket, so that one `select` waits for everything."""

    def ignore(_number: int, _frame: FrameType | None) -> None:
        """Not SIG_IGN, which the command would inherit."""

    readable, wake = socket.socketpair()
    wake.settimeout(0)
    signal.set_wakeup_fd(wake.detach(), warn_on_full_buffer=False)
    numbers = {signal.SIGCHLD, signal.SIGHUP, signal.SIGINT, signal.SIGTERM}
    for number in numbers:
        signal.signal(number, ignore)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)  # blocked at the start, see GuardedProcess
    return readable


def _start(
    command: list[str], uid: int | None, gid: int | None, stop_signal: int
) -> subprocess.Popen[bytes]:
    libc = ctypes.CDLL(None)  # loaded before the fork: the child of a fork must not import

    def end_with_guard() -> None:
        if sys.platform == "linux":
            libc.prctl(PR_SET_PDEATHSIG, stop_signal)

    return subprocess.Popen(
        command,
        user=uid,
        group=gid,
        extra_groups=None if uid is None else [],
        preexec_fn=end_with_guard,  # safe here: the guard has one thread
    )


def _was_told(owner: socket.socket) -> bool:
    try:
        return bool(owner.recv(16))
    except OSError:  # killed before it read the pid
        return False


def _stop(child: subprocess.Popen[bytes], stop_signal: int) -> None:
    child.send_signal(stop_signal)
    child.send_signal(signal.SIGCONT)  # a test may have suspended it
    try:
        child.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


if __name__ == "__main__":
    sys.exit(main())
