"""/etc/cutlayer: written once, from the claim and what the user has to say; an update never touches it."""

import json
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edge.enrolment import claim as claims
from edge.enrolment.claim import Claim
from edge.enrolment.errors import EnrolmentError
from edge.release import disk, users
from edge.release.layout import HOME, SETTINGS, STATE, Layout
from edge.release.manifest import ReleaseError

MOST_BYTES = 64 << 10
CLAIM = "claim.json"
"""In identity/, which is the user's: it removes the claim once used, and could not in /etc."""
USED = "claimed"
"""Beside it: which claim this board has enrolled with."""


def read_claim(path: Path) -> Claim:
    """Reads a claim; whether it has expired is the hub's to say.

    Raises:
        ReleaseError: it cannot be read or is no claim. The text never shows its content.
    """
    try:
        return claims.read(path)
    except EnrolmentError as error:
        raise ReleaseError(f"{error}: make one with cutlayer-hub enrol") from None


def compose(claim: Claim | None, theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all sections of device.toml: what is known on a board of ours is filled in, over what the user has written.

    Raises:
        ReleaseError: a section is no table, or one that nobody fills in is missing.
    """
    for name, section in theirs.items():
        if not isinstance(section, dict):
            raise ReleaseError(f"the configuration has {name!r:.60} outside of any section")
    filled: dict[str, dict[str, Any]] = {
        "device": {"state_directory": f"{STATE}/state"},
        "bundle": {"path": f"{HOME}/current/device.bundle"},
        "update": {"current": f"{HOME}/current", "incoming": f"{STATE}/incoming", "keys": f"{SETTINGS}/release-keys"},
        "service": {"healthy": f"{STATE}/healthy"},
    }
    if claim is not None:
        filled["device"]["name"] = claim.name
        filled["run"] = {"fleet": claim.fleet}
        filled["broker"] = {
            "url": claim.broker,
            "ca": f"{SETTINGS}/ca.pem",
            "certificate": f"{STATE}/identity/device.pem",
            "key": f"{STATE}/identity/device.key",
        }
        filled["enrolment"] = {"url": claim.enrol, "claim": f"{STATE}/identity/{CLAIM}"}
    whole = {name: {**theirs.get(name, {}), **filled.get(name, {})} for name in sorted({*theirs, *filled, "run"})}
    for section, key in (("device", "name"), ("broker", "url"), ("data", "source")):
        if key not in whole.get(section, {}):
            whose = "give a claim (--claim) or a" if section != "data" else "give a"
            raise ReleaseError(
                f"the configuration has no {key} in [{section}]: {whose} configuration (--config) that has it"
            )
    return whole


def read_config(path: Path | None) -> dict[str, Any]:
    """Reads the user's TOML; nothing where there is none.

    Raises:
        ReleaseError: it cannot be read, or is no TOML.
    """
    if path is None:
        return {}
    try:
        return tomllib.loads(read(path).decode("utf-8"))
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ReleaseError(f"{path} is no configuration: {error}") from None


def dump(sections: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns sections as TOML that reads back as the same.

    Raises:
        ReleaseError: a value has no place in a device's configuration.
    """
    lines = ["# Written when this board was installed; yours to change. Updates leave it alone."]
    for name, section in sections.items():
        lines += ["", f"[{_key(name)}]", *(f"{_key(key)} = {_value(key, value)}" for key, value in section.items())]
    text = "\n".join(lines) + "\n"
    if tomllib.loads(text) != sections:
        raise ReleaseError("the configuration has a value that cannot be written again as it was")
    return text


def write(layout: Layout, claim: Claim | None, config: Mapping[str, Any] | None, keys: bytes) -> None:
    """Writes what is not there yet, and a new claim over an old one; not the one that this board has enrolled with.

    Args:
        layout: of the board.
        claim: where the board is to enrol.
        config: of `compose`; None where the board has its configuration.
        keys: content of release-keys.
    """
    disk.make_folders(layout.settings)
    if not (layout.settings / "release-keys").exists():
        disk.write(layout.settings / "release-keys", keys)
    if claim is not None:
        disk.write(layout.settings / "ca.pem", claim.ca.encode())
        with disk.folder_of(layout.state / "identity", ours=layout.state) as folder:
            if not _used(folder, claim):
                disk.write_within(folder, CLAIM, claim.pack(), 0o600, users.owner(layout))
    if config is not None and not (layout.settings / "device.toml").exists():
        disk.write(layout.settings / "device.toml", dump(config).encode())


def _used(identity: int, claim: Claim) -> bool:
    try:
        return disk.read_within(identity, USED, 100).decode("ascii") == claim.mark
    except (OSError, ValueError):
        return False


def read(path: Path) -> bytes:
    """Returns a small file's content; raises ReleaseError where that cannot be, or it is too large."""
    try:
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ReleaseError(f"{path} cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise ReleaseError(f"{path} has more than {MOST_BYTES} bytes: it is no file for a board")
    return data


def _key(name: str) -> str:
    bare = name.replace("_", "").replace("-", "")
    return name if bare.isascii() and bare.isalnum() else _quoted(name)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _value(key: str, value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, list):
        return f"[{', '.join(_value(key, item) for item in value)}]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{_key(name)} = {_value(key, item)}" for name, item in value.items()) + "}"
    raise ReleaseError(f"the configuration's {key} = {value} is no text, number, switch, list or table")
