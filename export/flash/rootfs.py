"""Installs a release into an image builder's tree, of any architecture, without running anything of it.

The installer works in a new folder inside the tree, where no link can lead it astray; what it has made is then moved to its
places. The way there goes from folder to folder by descriptors and follows no link, so nothing outside the tree is written.
The user is made at the first boot by systemd-sysusers, and given its folder by systemd-tmpfiles.
"""

import os
import secrets
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from edge.release.install import Wanted, World, install
from edge.release.layout import HOME, SETTINGS, STATE, Layout
from edge.release.manifest import ReleaseError
from export.flash.errors import FlashError
from export.flash.parcel import Parcel

STAGE = ".cutlayer-flash-"
"""How the folder's name begins in which the tree's files are made; one of a run that was killed is removed."""
SYSTEM = "etc/systemd/system"
SYSUSERS, TMPFILES = "usr/lib/sysusers.d/cutlayer.conf", "usr/lib/tmpfiles.d/cutlayer.conf"
TEXTS = {
    SYSUSERS: f'u cutlayer - "cutlayer, split learning" {STATE} /usr/sbin/nologin\n',
    # One line for all of it: systemd refuses to give away what lies in a folder that is already somebody else's.
    TMPFILES: f"Z {STATE} - cutlayer cutlayer -\n",
}
FOLDERS = tuple(path.lstrip("/") for path in (HOME, SETTINGS, STATE))
HEAD = 64
"""Bytes of the tree's Python that say for which machine it is."""


@dataclass(frozen=True)
class Tree:
    """A tree, by descriptor."""

    path: Path
    handle: int

    @contextmanager
    def folder(self, path: str, *, make: bool = False) -> Iterator[int]:
        """Open a folder of the tree without following a link, after making what is missing if that is wanted.

        Raises:
            FlashError: a part of the way is a link or a file.
            FileNotFoundError: it is not there.
        """
        handle, gone = os.dup(self.handle), ""
        try:
            for name in filter(None, path.split("/")):
                gone = f"{gone}/{name}"
                if make:
                    _make(name, handle)
                try:
                    following = os.open(
                        name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle
                    )
                except NotADirectoryError:
                    raise FlashError(
                        f"{self.path}{gone} is a link or a file where a folder is needed: nothing is written through it"
                    ) from None
                os.close(handle)
                handle = following
            yield handle
        finally:
            os.close(handle)

    def has(self, path: str) -> bool:
        """Whether there is anything of this name, a link included."""
        folder, _, name = path.rpartition("/")
        try:
            with self.folder(folder) as handle:
                os.lstat(name, dir_fd=handle)
        except FileNotFoundError:
            return False
        return True

    def link(self, path: str) -> str | None:
        """What a link of the tree says; None where it is none."""
        folder, _, name = path.rpartition("/")
        try:
            with self.folder(folder) as handle:
                return os.readlink(name, dir_fd=handle)
        except OSError:
            return None


def install_tree(root: Path, parcel: Parcel, say: Callable[[str], None]) -> bool:
    """Install into a tree; returns whether anything was to be done.

    Args:
        root: of the tree.
        parcel: what its board is given.
        say: takes the installer's lines.

    Raises:
        FlashError: it is no tree of a system, or not one for this release, or has another already; it is as it was.
    """
    with _opened(root) as tree:
        current = tree.link(f"{FOLDERS[0]}/current")
        if current is not None and current.rpartition("/")[2] == parcel.id:
            return False
        python, head = _python(tree)
        _sweep(tree)
        name = STAGE + secrets.token_hex(6)
        os.mkdir(name, 0o700, dir_fd=tree.handle)
        try:
            stage = tree.path / name
            _stand_in(stage, python, head)
            _run_installer(stage, parcel, say)
            shutil.rmtree(stage / "usr")
            _write_texts(stage)
            paths = _paths(stage)
            _refuse_others(tree, paths)
            _move(tree, name, paths)
        except OSError as error:
            raise FlashError(f"{root} cannot be written, it is as it was: {error}") from error
        finally:
            shutil.rmtree(name, dir_fd=tree.handle)
        # systemd-sysusers runs where /usr is newer than what it has seen.
        with tree.folder("usr") as usr:
            os.utime(usr)
        return True


@contextmanager
def _opened(root: Path) -> Iterator[Tree]:
    path = root.resolve()
    if path == Path("/"):
        raise FlashError("this is the system that runs: use `flash ssh` for a board, or its installer.pyz")
    try:
        handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise FlashError(f"{root} is no folder that can be opened: {error.strerror}") from error
    try:
        tree = Tree(path, handle)
        missing = [name for name in ("etc", "usr/bin/python3", "usr/lib/systemd/systemd") if not tree.has(name)]
        if missing:
            raise FlashError(
                f"{root} is no system that can be installed into: there is no {' and no '.join(missing)} "
                "(looked for etc, usr/bin/python3 and usr/lib/systemd/systemd)"
            )
        yield tree
    finally:
        os.close(handle)


def _python(tree: Tree) -> tuple[str, bytes]:
    """Return the name of the tree's Python, such as python3.13, and the first bytes of it."""
    name = tree.link("usr/bin/python3") or "python3"
    if "/" in name:
        raise FlashError(f"{tree.path}/usr/bin/python3 leads to {name}, not to a program beside it")
    try:
        with tree.folder("usr/bin") as folder:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
        with os.fdopen(handle, "rb") as file:
            return name, file.read(HEAD)
    except OSError as error:
        raise FlashError(f"{tree.path}/usr/bin/{name} cannot be read: {error.strerror}") from error


def _stand_in(stage: Path, python: str, head: bytes) -> None:
    """What the installer looks at to see for which Python and machine to build."""
    folder = stage / "usr" / "bin"
    folder.mkdir(parents=True)
    (folder / python).write_bytes(head)
    if python != "python3":
        (folder / "python3").symlink_to(python)


def _run_installer(stage: Path, parcel: Parcel, say: Callable[[str], None]) -> None:
    config = stage / "usr" / "device.toml"  # what is below usr is not kept
    config.write_bytes(parcel.config or b"")
    world = World(lambda: datetime.now(UTC), time.sleep, say)
    wanted = Wanted(parcel.claim, config, wait_seconds=0.0)
    try:
        install(Layout(stage), parcel.release, parcel.claim.keys, parcel.claim.key_file, world, wanted)
    except ReleaseError as error:
        raise FlashError(str(error)) from error


def _write_texts(stage: Path) -> None:
    for path, text in TEXTS.items():
        (stage / path).parent.mkdir(parents=True)
        (stage / path).write_text(text)
        (stage / path).chmod(0o644)


def _paths(stage: Path) -> list[str]:
    """What is to be moved: whole folders of ours, and single files into folders of the system; links that start us last."""
    units = sorted(
        path.relative_to(stage) for path in (stage / SYSTEM).rglob("*") if path.is_symlink() or not path.is_dir()
    )
    units.sort(key=lambda path: (stage / path).is_symlink())
    return [*FOLDERS, *TEXTS, *map(str, units)]


def _refuse_others(tree: Tree, paths: Sequence[str]) -> None:
    there = [path for path in paths if tree.has(path)]
    if there:
        raise FlashError(
            f"{tree.path} has another cutlayer in it: {', '.join(there[:4])}{' …' if there[4:] else ''}. "
            "Make the tree anew, or remove these; boards that run are updated by `cutlayer-hub rollout`"
        )


def _move(tree: Tree, stage: str, paths: Sequence[str]) -> None:
    """Rename everything into place; what has been moved is removed again where one cannot be."""
    done: list[str] = []
    try:
        for path in paths:
            folder, _, name = path.rpartition("/")
            with tree.folder(f"{stage}/{folder}") as source, tree.folder(folder, make=True) as target:
                os.rename(name, name, src_dir_fd=source, dst_dir_fd=target)
            done.append(path)
    except BaseException:
        for path in reversed(done):
            with suppress(OSError, FlashError):
                _remove(tree, path)
        raise


def _remove(tree: Tree, path: str) -> None:
    folder, _, name = path.rpartition("/")
    with tree.folder(folder) as handle:
        if stat.S_ISDIR(os.lstat(name, dir_fd=handle).st_mode):
            shutil.rmtree(name, dir_fd=handle)
        else:
            os.unlink(name, dir_fd=handle)


def _sweep(tree: Tree) -> None:
    for name in os.listdir(tree.handle):  # noqa: PTH208  by descriptor
        if name.startswith(STAGE):
            shutil.rmtree(name, dir_fd=tree.handle)


def _make(name: str, handle: int) -> None:
    with suppress(FileExistsError):
        os.mkdir(name, dir_fd=handle)
        made = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=handle)
        try:
            os.fchmod(made, 0o755)
        finally:
            os.close(made)
