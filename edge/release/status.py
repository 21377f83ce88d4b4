"""What is on the board: for a person, and for tests that want every hash looked at."""

import hashlib
import zipfile

from edge.release import environment, guard, trial
from edge.release.install import KEPT
from edge.release.layout import Layout, linked
from edge.release.manifest import AGENT, UNITS, ReleaseError


def status(layout: Layout, *, thorough: bool = False) -> tuple[list[str], bool]:
    """Returns lines for a person, and whether there is a release to start and nothing is damaged.

    Args:
        layout: of the board.
        thorough: whether every file is hashed.
    """
    lines, well = [], guard.whole(layout, linked(layout.current))
    for name, link in (("current", layout.current), ("previous", layout.previous)):
        release = linked(link)
        if release is None:
            lines.append(f"{name}: none")
            continue
        try:
            manifest = guard.manifest(layout, release)
            if thorough:
                verify(layout, release)
        except (OSError, ReleaseError, zipfile.BadZipFile) as error:
            lines.append(f"{name}: {release}, damaged: {error}")
            well = False
        else:
            lines.append(
                f"{name}: {release}, version {manifest.version}, cutlayer {manifest.cutlayer}, {manifest.board}"
            )
    there, healthy = trial.load(layout), guard.healthy(layout)
    if there is not None:
        cuts = f", and {there.cuts} times until the power went" if there.cuts else ""
        then = f"going back would be to {there.previous or 'none'}"
        if there.release == healthy:
            then = "it is healthy: the trial ends with the next start"
        lines.append(f"on trial: {there.release}, started {there.starts} times{cuts}; {then}")
    lines.append(f"highest version so far: {guard.version(layout)}")
    lines.append(f"called healthy: {healthy or 'none'}")
    return lines, well


def verify(layout: Layout, name: str) -> None:
    """Hashes every file of an installed release.

    Raises:
        ReleaseError: one is damaged, missing, or of no release.
        OSError: one cannot be read.
    """
    folder, manifest = layout.release(name), guard.manifest(layout, name)
    if manifest.id != name:
        raise ReleaseError(f"{folder}: its manifest is that of {manifest.id[:12]}")
    for path, file in manifest.files.items():
        if path in KEPT or path.startswith(UNITS):
            data = (folder / path).read_bytes()
            if hashlib.sha256(data).hexdigest() != file.sha256:
                raise ReleaseError(f"{folder / path} is damaged")
    with zipfile.ZipFile(folder / AGENT) as agent:
        names = {member.filename for member in agent.infolist() if not member.is_dir()}
        for path in names:
            if (folder / "agent" / path).read_bytes() != agent.read(path):
                raise ReleaseError(f"{folder / 'agent' / path} is damaged")
    wheels = layout.environment(manifest.environment)
    wanted = {
        path.removeprefix("wheels/"): file.sha256 for path, file in manifest.files.items() if path.startswith("wheels/")
    }
    if {wheel: entry["sha256"] for wheel, entry in environment.index(wheels).items()} != wanted:
        raise ReleaseError(f"{wheels} was made of other wheels")
    environment.check(wheels, manifest.python)
