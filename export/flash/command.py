"""`cutlayer-export flash bundle | lock | card | ssh | rootfs`."""

import argparse
import getpass
import secrets
import sys
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from export.flash import bundle_command
from export.flash.errors import FlashError

if TYPE_CHECKING:
    from edge.enrolment.claim import Claim
    from export.flash.board import Seen
    from export.flash.hello import Hello
    from export.flash.parcel import Parcel
    from export.flash.seed import Wifi

PRIVATE = 0o077
"""Permissions that a file with a secret should not have."""


def run(arguments: argparse.Namespace) -> int:
    """Run the chosen command; returns the exit code."""
    return int(arguments.flash(arguments))


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the commands below `flash`."""
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (text, command, options) in COMMANDS.items():
        one = commands.add_parser(name, help=text, description=text)
        options(one)
        one.set_defaults(flash=command)


def _card(arguments: argparse.Namespace) -> int:
    from export.flash.card import expired_before_use, prepare
    from export.flash.parcel import read_parcel
    from export.flash.seed import Seed

    now = datetime.now(UTC)
    parcel = read_parcel(arguments.release, arguments.claim, arguments.config, now)
    parcel.check_new(now)
    seed = Seed(
        hostname=arguments.hostname,
        user=arguments.user,
        ssh_keys=_public_keys(arguments.ssh_key),
        wifi=_wifi(arguments),
        country=arguments.country,
    )
    instance = f"cutlayer-{now:%Y%m%d}-{secrets.token_hex(6)}"
    written = prepare(arguments.target, parcel, seed, instance, replace=arguments.replace)
    print(f"{written.place}: {', '.join(written.files)}")
    for name in written.kept:
        print(f"kept what was there: {name}")
    print(
        f"instance {instance}: cloud-init runs at the next boot, and installs {parcel.claim.name} (release {parcel.id[:16]})"
    )
    print(f"until then whoever holds the card can read the claim on it, and enrol as {parcel.claim.name} once")
    if seed.wifi and not seed.country:
        print("no --country: Raspberry Pi OS may keep the radio off until it knows where it is")
    if warning := expired_before_use(parcel, now):
        print(warning)
    print(f"next: {_to_the_board(arguments.target)}; cutlayer-hub status shows when {parcel.claim.name} is there")
    return 0


def _to_the_board(target: Path) -> str:
    if target.is_dir():
        return "unmount the card, put it into the board and switch that on"
    return "write the image to a card with rpi-imager or bmaptool and start the board from it"


def _ssh(arguments: argparse.Namespace) -> int:
    from export.flash import board
    from export.flash.parcel import read_parcel

    now = datetime.now(UTC)
    parcel = read_parcel(arguments.release, arguments.claim, arguments.config, now)
    visit = board.Visit(arguments.target, tuple(arguments.ssh_option), arguments.python, arguments.root)
    short = parcel.id[:16]
    seen = board.look(visit)
    board.check(visit, seen, parcel, now)
    with _hub(arguments, parcel.claim) as hello:
        there = seen.current == parcel.id
        before = None if there or hello is None else hello.instance
        if there:
            print(f"{arguments.target} has release {short} already: nothing was sent")
        else:
            board.install(visit, seen, parcel)
            print(
                f"{arguments.target}: release {short} (version {parcel.manifest.version}) is installed as {parcel.claim.name}"
            )
        if not arguments.wait:
            return 0
        until = time.monotonic() + arguments.wait
        well = arguments.root != "/" or _watched(board.watch(visit, seen, parcel.id, arguments.wait), parcel, arguments)
        if hello is None:
            return 0 if well else 1
        if not hello.wait(max(until - time.monotonic(), 1.0), other_than=before):
            print(
                f"not seen at the hub: {parcel.claim.name} has not said hello on its broker within {arguments.wait} s; "
                "the board goes on trying",
                file=sys.stderr,
            )
            return 1
        print(f"seen at the hub: {parcel.claim.name} is online")
        return 0 if well else 1


def _watched(found: "Seen", parcel: "Parcel", arguments: argparse.Namespace) -> bool:
    """Print what the board says of its agent; whether it is well."""
    name, short = parcel.claim.name, parcel.id[:16]
    if found.current != parcel.id:
        raise FlashError(
            f"{arguments.target} has gone back to release {found.current[:16]}: {short} did not become healthy there"
        )
    if not found.healthy:
        print(
            f"{arguments.target}: the agent has not called itself healthy within {arguments.wait} s (systemd: {found.state}); "
            "its last words stand above, and the board goes on trying",
            file=sys.stderr,
        )
        return False
    print(f"seen on the board: {name} runs release {short} and is healthy (systemd: {found.state})")
    return True


def _hub(arguments: argparse.Namespace, claim: "Claim") -> AbstractContextManager["Hello | None"]:
    """Listen on the broker, where there is one to listen on."""
    if not arguments.wait or (arguments.fleet_folder is None and arguments.broker is None):
        return nullcontext()
    from export.flash.hello import listen

    return listen(arguments.broker or claim.broker, claim.fleet, claim.name, arguments.fleet_folder)


def _rootfs(arguments: argparse.Namespace) -> int:
    from export.flash.parcel import read_parcel
    from export.flash.rootfs import install_tree

    now = datetime.now(UTC)
    parcel = read_parcel(arguments.release, arguments.claim, arguments.config, now)
    parcel.check_new(now)
    changed = install_tree(arguments.target, parcel, lambda text: print(text, file=sys.stderr))
    short = parcel.id[:16]
    if not changed:
        print(f"{arguments.target} has release {short} already: nothing was written")
        return 0
    print(
        f"{arguments.target}: release {short} (version {parcel.manifest.version}) starts at the first boot as {parcel.claim.name}"
    )
    print(
        f"the image carries the claim: whoever has it can enrol as {parcel.claim.name} once; make one image for one board"
    )
    return 0


def _wifi(arguments: argparse.Namespace) -> "Wifi | None":
    from export.flash.seed import Wifi, read_wifi

    if arguments.wifi_ask:
        if not sys.stdin.isatty():
            raise FlashError("--wifi-ask needs a terminal to ask on: give --wifi FILE")
        name = input("Wi-Fi name: ")
        return Wifi(name, getpass.getpass("Wi-Fi passphrase: "))
    if arguments.wifi is None:
        return None
    try:
        text = arguments.wifi.read_text("utf-8")
        if arguments.wifi.stat().st_mode & PRIVATE:
            print(f"others can read {arguments.wifi}: chmod 600 it", file=sys.stderr)
    except (OSError, UnicodeDecodeError) as error:
        raise FlashError(
            f"the Wi-Fi file {arguments.wifi} cannot be read: {getattr(error, 'strerror', 'it is not UTF-8')}"
        ) from None
    return read_wifi(text)


def _public_keys(path: Path | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        text = path.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise FlashError(f"{path} cannot be read: {getattr(error, 'strerror', 'it is not text')}") from None
    if "PRIVATE KEY" in text:
        raise FlashError(f"{path} is a private key, which belongs on no card: give {path}.pub")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not lines:
        raise FlashError(f"{path} has no public key in it")
    return tuple(lines)


def _parcel_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--release", type=Path, required=True, metavar="FILE", help="made by cutlayer-export flash bundle"
    )
    parser.add_argument("--claim", type=Path, required=True, metavar="FILE", help="made by cutlayer-hub enrol")
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="the device.toml to begin with: [data], [energy], [budget] and so on",
    )


def _card_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "target", type=Path, metavar="TARGET", help="the folder that a boot partition is mounted on, or an .img file"
    )
    _parcel_options(parser)
    wifi = parser.add_mutually_exclusive_group()
    wifi.add_argument(
        "--wifi", type=Path, metavar="FILE", help="lines: the network's name, its passphrase, and wpa3 where it must be"
    )
    wifi.add_argument("--wifi-ask", action="store_true", help="ask for both on the terminal")
    parser.add_argument("--country", metavar="DE", help="where the radio is, as two letters")
    parser.add_argument("--ssh-key", type=Path, metavar="FILE", help="public keys that may log in")
    parser.add_argument("--user", metavar="NAME", help="a user for them, who may use sudo; else the system's own")
    parser.add_argument("--hostname", metavar="NAME", help="else the device's name, where the seed has none")
    parser.add_argument(
        "--replace",
        action="store_true",
        help="take nothing over from user-data, meta-data and network-config that are there",
    )


def _ssh_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", metavar="TARGET", help="as ssh takes it: user@host, a name of your configuration")
    _parcel_options(parser)
    parser.add_argument(
        "--ssh-option",
        action="append",
        default=[],
        metavar="OPTION",
        help="for ssh, such as Port=2222 or --ssh-option=-v",
    )
    parser.add_argument(
        "--wait",
        type=_seconds,
        default=120,
        metavar="SECONDS",
        help="for the agent to be healthy; 0: do not wait (default: %(default)s)",
    )
    parser.add_argument(
        "--fleet-folder",
        type=Path,
        metavar="DIR",
        help="wait for its hello at the hub, too, with this folder's certificate",
    )
    parser.add_argument("--broker", metavar="URL", help="where to wait for it; the claim's by default")
    parser.add_argument(
        "--python", default="/usr/bin/python3", metavar="PATH", help="on the board (default: %(default)s)"
    )
    parser.add_argument(
        "--root", default="/", metavar="PATH", help="on the board; below another than / nothing is started"
    )


def _rootfs_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("target", type=Path, metavar="DIR", help="the root folder of an image's tree")
    _parcel_options(parser)


def _seconds(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 7 and int(text) <= 86400):
        raise argparse.ArgumentTypeError(f"{text} is not a whole number from 0 to 86400")
    return int(text)


COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    **bundle_command.COMMANDS,
    "card": (
        "put all on a card, or into an image, that lets a board install itself at its first boot",
        _card,
        _card_options,
    ),
    "rootfs": ("install into an image builder's tree, running nothing of it", _rootfs, _rootfs_options),
    "ssh": ("install on a board that runs, over your own ssh", _ssh, _ssh_options),
}
