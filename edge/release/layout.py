"""Where everything of a board is, below a root folder (tests and image builders have one of their own)."""

import re
from dataclasses import dataclass
from pathlib import Path

ID = re.compile(r"[0-9a-f]{64}")
"""Name of a release (the hash of its manifest) and of an environment."""

SETTINGS = "/etc/cutlayer"
STATE = "/var/lib/cutlayer"
HOME = "/opt/cutlayer"


@dataclass(frozen=True)
class Layout:
    """The folders and files of the board whose disk begins at `root`."""

    root: Path = Path("/")

    def path(self, absolute: str) -> Path:
        """Returns where `/opt/…` of the board is for us."""
        return self.root / absolute.lstrip("/")

    @property
    def home(self) -> Path:
        """Releases, environments and the links to those in use; root's alone to write."""
        return self.path(HOME)

    @property
    def releases(self) -> Path:
        """One folder a release; hidden ones are not complete."""
        return self.home / "releases"

    @property
    def environments(self) -> Path:
        """One folder a set of wheels; hidden ones are not complete."""
        return self.home / "environments"

    @property
    def current(self) -> Path:
        """Link to the release that is started."""
        return self.home / "current"

    @property
    def previous(self) -> Path:
        """Link to the last release that had proven itself before the current one."""
        return self.home / "previous"

    @property
    def trial(self) -> Path:
        """The journal: which release is on trial, and what to go back to."""
        return self.home / "trial.json"

    @property
    def lock(self) -> Path:
        """Held by who changes any of this; nobody else can open it."""
        return self.home / "lock"

    @property
    def version(self) -> Path:
        """Highest version ever accepted."""
        return self.home / "version"

    @property
    def installer(self) -> Path:
        """Installer and guard in use, always of a release that has proven itself."""
        return self.home / "installer.pyz"

    @property
    def settings(self) -> Path:
        """device.toml, release-keys, ca.pem."""
        return self.path(SETTINGS)

    @property
    def state(self) -> Path:
        """What belongs to the service's user: state/, identity/, incoming/, healthy."""
        return self.path(STATE)

    @property
    def units(self) -> Path:
        """The board's own units of systemd."""
        return self.path("/etc/systemd/system")

    def release(self, name: str) -> Path:
        """Returns the folder of a release by its id."""
        return self.releases / name

    def environment(self, name: str) -> Path:
        """Returns the folder of an environment by its hash."""
        return self.environments / name


def linked(link: Path) -> str | None:
    """Returns the id of the release that a link names, whether it is there or not; None without a link."""
    try:
        name = link.readlink().name
    except OSError:
        return None
    return name if ID.fullmatch(name) else None
