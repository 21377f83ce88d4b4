"""The commands on a fleet's folder: `cutlayer-hub keys|enrol|devices|status|revoke`.

All of them renew what of the fleet's certificates runs out, and say it where that fails.
"""

import argparse
import os
import secrets
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

from edge.enrolment.claim import Claim
from edge.link import LinkError, Message
from edge.mqtt_link import MqttLink
from edge.wire import topics
from edge.wire.frames import WireError
from export.flash.boards import BOARDS
from hub import config
from hub.config import HubConfig
from hub.rollout.book import Shelf
from hub.rollout.progress import summary
from hub.trust import files, mosquitto, revocation
from hub.trust.errors import TrustError
from hub.trust.folder import Folder, addresses
from hub.trust.register import Member
from hub.trust.serving import keep

STATUS_SECONDS = 1.0
"""How long retained statuses are listened for."""
NAME_WIDTH = 26
LEAST_HOURS, MOST_HOURS = 1 / 60, 366 * 24
"""Of a claim."""

Online = Mapping[str, bool] | None
"""Who is there, by name; None: there is no broker to ask."""


def keys(options: argparse.Namespace) -> int:
    """Make the fleet's authority and keys, where there are none, and show what there is."""
    settings, now = _settings(options), datetime.now(UTC)
    folder, made = Folder.open_or_make(settings.tls.folder, settings.fleet.name, now)
    keep(folder, addresses(settings), now)
    until = folder.authority.certificate.not_valid_after_utc
    print(f"fleet     {folder.fleet}, in {folder.root}{': made now, back it up' if made else ''}")
    print(f"authority {folder.ca}, until {until:%Y-%m-%d}")
    for key in folder.release_keys():
        print(f"releases  {key}")
    return 0


def enrol(options: argparse.Namespace) -> int:
    """Make a claim: a file that lets one board in, once."""
    settings, now = _settings(options), datetime.now(UTC)
    folder = _opened(settings, now)
    if not LEAST_HOURS <= options.hours <= MOST_HOURS:
        raise TrustError(f"a claim of {options.hours:g} hours: it lasts from a minute to a year")
    _check(options.name, options.board)
    path = options.out or Path(f"{options.name}.claim")
    try:
        files.try_out(path)  # before anything is in the register, and a claim of before withdrawn
    except OSError as error:
        raise TrustError(f"the claim cannot be written to {path}: {error.strerror or error}") from error
    before = {member.name: member for member in folder.register.members()}.get(options.name)
    claim = make_claim(folder, settings, options.name, options.board, timedelta(hours=options.hours), now)
    try:
        files.write(path, claim.pack(), files.PRIVATE)
    except OSError as error:
        raise TrustError(f"the claim cannot be written to {path}: {error.strerror or error}") from error
    print(f"{path}: lets {claim.name} in at {claim.enrol} once, until {_minute(claim.until)} UTC")
    if before and before.claim_until and before.claim_until > now:
        print(f"the claim of {claim.name} that was made before is withdrawn")
    if before and before.state(now) == "enrolled":
        print(f"{claim.name} is enrolled already: what it has is revoked when a board with another key uses this")
    print("who has it may take the device's place: bring it to the board, keep no copy")
    print("next: cutlayer-export flash card, ssh or rootfs, with --claim and a --release")
    return 0


def make_claim(folder: Folder, settings: HubConfig, name: str, board: str, life: timedelta, now: datetime) -> Claim:
    """A claim of a fleet for one device.

    Raises:
        TrustError: the name is not one for a device, or there is no such board.
    """
    _check(name, board)
    where = addresses(settings)
    token = folder.register.claim(name, board, life, now)
    return Claim(
        name=name,
        board=board,
        fleet=folder.fleet,
        broker=where.broker,
        enrol=where.enrol,
        ca=folder.ca.read_text("ascii"),
        release_keys=tuple(folder.release_keys()),
        token=token,
        expires=f"{now + life:%Y-%m-%dT%H:%M:%SZ}",
    )


def _check(name: str, board: str) -> None:
    try:
        topics.check_name(name)
        topics.check_name(board, "board")
    except WireError as error:
        raise TrustError(str(error)) from None
    if not name[0].isalnum() or not board[0].isalnum():
        raise TrustError(f"{name if not name[0].isalnum() else board!r} must begin with a letter or digit")
    if board not in BOARDS:
        raise TrustError(f"there are no releases for a board {board!r}; known are {', '.join(BOARDS)}")


def devices(options: argparse.Namespace) -> int:
    """Show who belongs to the fleet: claims and certificates."""
    settings, now = _settings(options), datetime.now(UTC)
    for line in device_lines(_opened(settings, now).register.members(), now):
        print(line)
    return 0


def status(options: argparse.Namespace) -> int:
    """Show who is online now, whose certificate ends when, and where the last rollout stands."""
    settings, now = _settings(options), datetime.now(UTC)
    folder = _opened(settings, now)
    for line in status_lines(folder.register.members(), _online(folder, settings, now), now):
        print(line)
    book = Shelf(settings.tls.folder).load()
    for line in summary(book) if book else ():
        print(line)
    return 0


def revoke(options: argparse.Namespace) -> int:
    """Put a device out for good: its certificates, its claims, its open connection."""
    settings, now = _settings(options), datetime.now(UTC)
    folder = _opened(settings, now)
    found, became = revocation.revoke(folder, options.name, addresses(settings).own, now)
    counts = (("certificate", "revoked", found.certificates), ("open claim", "withdrawn", found.claims))
    done = [f"{count} {what}{'' if count == 1 else 's'} {end}" for what, end, count in counts if count]
    print(f"{options.name}: {', '.join(done) or 'nothing of it was good any more'}")
    print(became)
    return 0


def device_lines(members: Sequence[Member], now: datetime) -> list[str]:
    """The table of `devices`, at most 80 characters a line."""
    if not members:
        return ["no devices yet: cutlayer-hub enrol --name NAME --board BOARD makes a claim for one"]
    head = f"{'device':<{NAME_WIDTH}}{'board':<16}{'state':<17}{'enrolled':<11}until"
    return [head, "-" * 80, *(_device_line(member, now) for member in members)]


def _device_line(member: Member, now: datetime) -> str:
    until = member.claim_until if member.state(now).startswith("claim") else member.until
    cells = (
        f"{_short(member.name, NAME_WIDTH):<{NAME_WIDTH}}{_short(member.board, 16):<16}{member.state(now):<17}",
        f"{_day(member.enrolled):<11}{_day(until)}",
    )
    return "".join(cells).rstrip()


def status_lines(members: Sequence[Member], online: Online, now: datetime) -> list[str]:
    """The table of `status`, at most 80 characters a line."""
    lines = [f"{'device':<{NAME_WIDTH}}{'now':<10}{'state':<17}{'days left':>9}  enrolled (UTC)", "-" * 80]
    for member in members:
        here = "?" if online is None else "online" if online.get(member.name) else "offline"
        good = member.until is not None and member.revoked is None
        left = f"{(member.until - now).total_seconds() / 86400:.0f}" if good and member.until is not None else "–"  # noqa: RUF001
        enrolled = _minute(member.enrolled) if member.enrolled else "–"  # noqa: RUF001
        lines.append(
            f"{_short(member.name, NAME_WIDTH):<{NAME_WIDTH}}{here:<10}{member.state(now):<17}{left:>9}  {enrolled}"
        )
    lines += [
        f"{_short(name, NAME_WIDTH):<{NAME_WIDTH}}{'online':<10}not in the register"
        for name in sorted({name for name, there in (online or {}).items() if there} - {m.name for m in members})
    ]
    if online is None:
        lines.append("no broker of this fleet runs here: who is online is not known")
    else:
        lines.append(f"{sum(online.values())} of {len(members)} online")
    return lines


def _online(folder: Folder, settings: HubConfig, now: datetime) -> Online:
    """Who is there, as the retained statuses say."""
    if mosquitto.running(folder) is None:
        return None
    certificate, key = folder.client("status", now)
    link = MqttLink(
        addresses(settings).own,
        f"status-{secrets.token_hex(4)}",
        subscriptions=(f"{topics.ROOT}/{folder.fleet}/+/status",),
        ca=folder.ca,
        certificate=certificate,
        key=key,
    )
    found: dict[str, bool] = {}
    try:
        link.open(5.0)
        for _ in range(10):
            for event in link.poll(STATUS_SECONDS / 10):
                if isinstance(event, Message):
                    _note(folder.fleet, event, found)
    except LinkError as error:
        print(error, file=sys.stderr)
        return None
    finally:
        link.close()
    return found


def _note(fleet: str, event: Message, found: dict[str, bool]) -> None:
    if event.topic == topics.hub_status(fleet):
        return
    try:
        name, _ = topics.parse(fleet, event.topic)
        found[name] = topics.read_status(event.payload)[0]
    except WireError:
        return  # a device may write nonsense into its own status


def _settings(options: argparse.Namespace) -> HubConfig:
    return config.load(options.config, os.environ)


def _opened(settings: HubConfig, now: datetime) -> Folder:
    folder = Folder.open(settings.tls.folder, settings.fleet.name)
    try:
        warnings = keep(folder, addresses(settings), now)
    except OSError as error:
        raise TrustError(f"the fleet's folder {folder.root} cannot be written: {error.strerror or error}") from error
    for sentence in warnings:
        print(f"warning: {sentence}", file=sys.stderr)
    return folder


def _short(text: str, width: int) -> str:
    return text if len(text) < width else text[: width - 2] + "…"


def _day(when: datetime | None) -> str:
    return "" if when is None else f"{when:%Y-%m-%d}"


def _minute(when: datetime) -> str:
    return f"{when:%Y-%m-%d %H:%M}"


COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "keys": keys,
    "enrol": enrol,
    "devices": devices,
    "status": status,
    "revoke": revoke,
}
