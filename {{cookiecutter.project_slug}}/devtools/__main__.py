"""`python -m devtools`: the command line. What the commands do is in `commands.py`."""

import argparse
import signal
import sys
from pathlib import Path

from devtools.commands import Services, migration, run, up
from devtools.processes import DevtoolsError

INTERRUPTED = 128 + signal.SIGINT
TERMINATED = 128 + signal.SIGTERM


def main(arguments: list[str]) -> int:
    # argparse would take the options of COMMAND for its own.
    split = arguments.index("--") if "--" in arguments else len(arguments)
    command = arguments[split + 1 :]
    parser = _parser()
    options = parser.parse_args(arguments[:split])
    if command and options.name != "up":
        parser.error("only `up` takes a command after --")

    # As Ctrl-C does: leave the `with` blocks, which stop the servers.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        if options.name == "migration":
            return migration(options.message)
        if options.name not in {"up", "run"}:
            parser.print_help()
            return 0
        services = Services(options.data, options.postgres_port, options.redis_port)
        return up(services, command) if options.name == "up" else run(services)
    except DevtoolsError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m devtools",
        description="PostgreSQL and Redis for development, without Docker."
        " A server is not started when DATABASE_URL or CACHE_URL names one.",
    )
    commands = parser.add_subparsers(dest="name", metavar="COMMAND")

    services = argparse.ArgumentParser(add_help=False)
    services.add_argument(
        "--data", type=Path, default=Path(".dev"), metavar="FOLDER", help="default: .dev"
    )
    for name, port in (("postgres", 5432), ("redis", 6379)):
        services.add_argument(
            f"--{name}-port",
            type=int,
            default=port,
            metavar="N",
            help=f"default: {port}, or a free one when it is taken",
        )
    commands.add_parser(
        "up",
        parents=[services],
        usage="%(prog)s [options] [-- COMMAND ...]",
        help="start both and run COMMAND with them, or wait for Ctrl-C",
    )
    commands.add_parser(
        "run", parents=[services], help="start both, migrate, and run the application with reload"
    )
    new = commands.add_parser("migration", help="write a migration for what changed in the models")
    new.add_argument("message", help='what it does: "add cities"')
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
