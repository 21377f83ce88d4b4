"""Commands that change or describe a board's disk: install, guard, status."""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from edge.enrolment.claim import Claim
from edge.release import guard, incoming, install, settings, status, units
from edge.release.layout import Layout
from edge.release.manifest import ReleaseError
from edge.release.signatures import parse_keys
from edge.release.trial import STARTS

FAULT = 1


def run_install(arguments: argparse.Namespace) -> int:
    """Install a release; 0 also where it is there already."""
    if (arguments.file is None) != arguments.incoming:
        raise ReleaseError("give a release file, or --incoming")
    layout = Layout(arguments.root.resolve())
    claim = settings.read_claim(arguments.claim) if arguments.claim else None

    def trusted() -> tuple[Sequence[bytes], bytes]:
        key_file, source = _key_file(layout, arguments.keys, claim)
        return parse_keys(key_file.decode("ascii", "replace"), source), key_file

    world = install.World(lambda: datetime.now(UTC), time.sleep, _say)
    wanted = install.Wanted(claim, arguments.config, wait_seconds=arguments.wait_seconds)
    if arguments.incoming:
        done = incoming.install_incoming(layout, trusted, world, wanted)
    else:
        done = install.install(layout, arguments.file, *trusted(), world, wanted)
    if done is None:
        _say("no release is waiting")
        return 0
    if done.changed:
        _say(f"release {done.release[:12]} (version {done.version}) is installed and on trial")
    if (done.changed or not arguments.incoming) and layout.root == Path("/") and not arguments.no_start:
        units.start(_say)
    return 0


def _key_file(layout: Layout, given: Path | None, claim: Claim | None) -> tuple[bytes, str]:
    """Returns the trusted keys and where they are from: those given, else the board's own, else the claim's."""
    path = given or layout.settings / "release-keys"
    if given is None and claim is not None and not path.exists():
        return claim.key_file, "the claim"
    if given is None and not path.exists():
        raise ReleaseError("there are no keys to check it with: give --keys FILE, or a claim that has them")
    return settings.read(path), str(path)


def install_options(parser: argparse.ArgumentParser) -> None:
    """Add what install takes."""
    parser.add_argument("file", type=Path, nargs="?", metavar="FILE", help="release file")
    parser.add_argument("--incoming", action="store_true", help="install what waits in /var/lib/cutlayer/incoming")
    parser.add_argument("--keys", type=Path, metavar="FILE", help="public keys it may be signed with (/etc/cutlayer/release-keys)")  # fmt: skip
    parser.add_argument("--claim", type=Path, metavar="FILE", help="what lets this board enrol, once")
    parser.add_argument("--config", type=Path, metavar="TOML", help="your sections of device.toml: data, run, budget, energy")  # fmt: skip
    parser.add_argument("--no-start", action="store_true", help="leave the agent as it is")
    parser.add_argument("--wait-seconds", type=float, default=600.0, metavar="S", help="how long a clock that is in the past may take to be set (600)")  # fmt: skip
    root_option(parser)


def run_guard(arguments: argparse.Namespace) -> int:
    """Decide what is started now; 1 where there is nothing to start."""
    return 0 if guard.guard(Layout(arguments.root.resolve()), _say, starts=arguments.starts) else FAULT


def guard_options(parser: argparse.ArgumentParser) -> None:
    """Add what guard takes."""
    parser.add_argument("--starts", type=int, default=STARTS, metavar="N", help=f"starts that a release has to become healthy in ({STARTS})")  # fmt: skip
    root_option(parser)


def run_status(arguments: argparse.Namespace) -> int:
    """Print what is on the board; 1 where something is damaged or nothing can be started."""
    lines, well = status.status(Layout(arguments.root.resolve()), thorough=arguments.verify)
    print("\n".join(lines))
    return 0 if well else FAULT


def status_options(parser: argparse.ArgumentParser) -> None:
    """Add what status takes."""
    parser.add_argument("--verify", action="store_true", help="hash every file")
    root_option(parser)


def root_option(parser: argparse.ArgumentParser) -> None:
    """Add --root."""
    parser.add_argument("--root", type=Path, default=Path("/"), metavar="DIR", help="root of another system, such as an image's tree (/)")  # fmt: skip


COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "install": ("install a release, whole or not at all", run_install, install_options),
    "guard": ("decide which release is started now: before each start of the agent", run_guard, guard_options),
    "status": ("say which releases are on this board", run_status, status_options),
}


def _say(text: str) -> None:
    print(f"cutlayer: {text}", file=sys.stderr, flush=True)
