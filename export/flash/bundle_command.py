"""`cutlayer-export flash bundle | lock`."""

import argparse
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from edge.release.manifest import format_date, parse_date
from export.flash.boards import BOARDS, PYTHONS


def _bundle(arguments: argparse.Namespace) -> int:
    from export.flash.bundle import ReleaseSpec, build_release
    from export.flash.history import NAME, Wish

    spec = ReleaseSpec(
        bundle=arguments.bundle,
        board=arguments.board,
        keys=tuple(arguments.key),
        out=arguments.out or Path(f"{arguments.board}.release"),
        fleet=arguments.fleet,
        python=arguments.python or "",
        minimum_agent=arguments.minimum_agent,
        wheels=arguments.wheels,
        since=arguments.since,
        wish=Wish(arguments.version, arguments.issued, arguments.expires),
    )
    written = build_release(spec, datetime.now(UTC))
    manifest = written.manifest
    print(
        f"{written.path}  {written.path.stat().st_size / 1e6:.2f} MB, {len(manifest.files) - len(written.left_out)} files"
    )
    if written.left_out:
        print(f"without {len(written.left_out)} files of {arguments.since}: a board that runs it has them")
    print(f"release {manifest.id}")
    print(f"version {manifest.version} of fleet {manifest.fleet}, to be taken up until {format_date(manifest.expires)}; noted in {spec.keys[0].parent / NAME}")  # fmt: skip
    print(f"for {manifest.board}: {manifest.architecture}, Python {manifest.python}; cutlayer {manifest.cutlayer}, bundle {manifest.bundle[:16]}")  # fmt: skip
    print(f"signed by {', '.join(written.signers)}")
    if written.measured_on not in {"", manifest.architecture}:
        print(f"the graphs' formulations were measured on {written.measured_on}: on {manifest.architecture} results are the same, steps may be slower")  # fmt: skip
    print(f"next: cutlayer-export flash card, ssh or rootfs, or cutlayer-hub rollout {written.path}")
    return 0


def _bundle_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("bundle", type=Path, metavar="BUNDLE", help="device.bundle, or the folder it lies in")
    parser.add_argument("--board", required=True, choices=BOARDS, help="; ".join(f"{name}: {row.text}" for name, row in BOARDS.items()))  # fmt: skip
    parser.add_argument("--key", type=Path, required=True, action="append", metavar="FILE", help="private key of the fleet, such as fleet/release.key; several: one signature each")  # fmt: skip
    parser.add_argument("--out", type=Path, metavar="FILE", help="where it is written (default: BOARD.release)")
    parser.add_argument("--fleet", default="fleet", help="whose boards take it (default: %(default)s)")
    parser.add_argument("--version", type=int, metavar="N", help="counter of the fleet's releases; the next one by default")  # fmt: skip
    parser.add_argument("--issued", type=_date, metavar="DATE", help="such as 2026-11-22 or 2026-11-22T00:00:00Z; now by default")  # fmt: skip
    parser.add_argument("--expires", type=_date, metavar="DATE", help="until when boards take it up; 180 days later by default")  # fmt: skip
    parser.add_argument("--python", choices=PYTHONS, help="of the board; its system's usual one by default")
    parser.add_argument("--wheels", type=Path, metavar="FOLDER", help="where wheels are kept, and come to if one is missing; the user's cache by default")  # fmt: skip
    parser.add_argument("--since", type=Path, metavar="RELEASE", help="leave out what this older release has: for boards that run it")  # fmt: skip
    parser.add_argument("--minimum-agent", default="", metavar="VERSION", help="refused over the air by boards with an older agent")  # fmt: skip


def _lock(arguments: argparse.Namespace) -> int:
    from export.flash.wheels import lock_file, make_lock

    arguments.out.mkdir(parents=True, exist_ok=True)
    for architecture in sorted({row.architecture for row in BOARDS.values()}):
        for python in PYTHONS:
            with tempfile.TemporaryDirectory() as folder:
                text = make_lock(architecture, python, arguments.constraints, Path(folder))
            path = lock_file(architecture, python, arguments.out)
            path.write_text(text, "utf-8")
            print(f"{path}  {text.count('--hash')} wheels")
    return 0


def _lock_options(parser: argparse.ArgumentParser) -> None:
    from export.flash.wheels import LOCKS

    parser.add_argument("--constraints", type=Path, default=Path("constraints.txt"), metavar="FILE", help="the versions (default: %(default)s)")  # fmt: skip
    parser.add_argument("--out", type=Path, default=LOCKS, metavar="FOLDER", help="where the locks are written; the package's own by default")  # fmt: skip


def _date(text: str) -> datetime:
    try:
        return parse_date(text if "T" in text else f"{text}T00:00:00Z", "the date")
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "bundle": ("write one signed file with all that a board runs", _bundle, _bundle_options),
    "lock": ("write the locks of wheels anew, from constraints.txt", _lock, _lock_options),
}
