"""What cloud-init reads at a board's first boot (its NoCloud source): user-data, meta-data, network-config, cmdline.txt.

What a user or an imager has put there is kept and added to: parsed and written again by a YAML library, so that no name
or passphrase can become syntax. What cannot be added to is refused, or replaced where the user says so.

Traps: Raspberry Pi OS ships meta-data with `instance_id`, which cloud-init does not read (it is `instance-id`); and an
instance id in cmdline.txt (`ds=nocloud;i=…`, from rpi-imager) comes before that of the file.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import pbkdf2_hmac
from typing import Any

import yaml

from edge.enrolment.claim import Claim
from export.flash.errors import FlashError

FOLDER = "cutlayer"
SCRIPT = "first-boot.sh"
MARK = f"{FOLDER}/{SCRIPT}"
HOSTNAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
PUBLIC_KEY = re.compile(r"(ssh|ecdsa|sk-ssh|sk-ecdsa)-[A-Za-z0-9@.-]+ [A-Za-z0-9+/=]{16,}( .*)?")
HEX_KEY = re.compile(r"[0-9A-Fa-f]{64}")
INSTANCE = re.compile(r"(?<!\S)(ds=nocloud(?:-net)?\S*?;(?:i|instance-id)=)[^;\s]*")
DOMAIN = re.compile(r"(?<!\S)cfg80211\.ieee80211_regdom=\S*")
START = (
    f"for boot in /boot/firmware /boot; do test -e $boot/{MARK} && exec sh $boot/{MARK}; done; "
    f"echo 'cutlayer: no {MARK} below /boot/firmware or /boot' >&2; exit 1"
)
RUN = ["sh", "-c", START]
RUN_SSH = ["sh", "-c", "systemctl enable --now ssh || systemctl enable --now sshd"]
RUN_WIFI = ["sh", "-c", "if command -v rfkill; then rfkill unblock wifi; fi"]


@dataclass(frozen=True)
class Wifi:
    """A network to join."""

    ssid: str
    secret: str
    """A passphrase, or the key made from it as 64 hexadecimal digits."""
    sae: bool = False
    """WPA3 only: the card must carry the passphrase itself."""

    def __repr__(self) -> str:
        """Without the secret."""
        return f"Wifi({self.ssid!r})"

    def __post_init__(self) -> None:
        """Check what the standard demands.

        Raises:
            FlashError: the name or the passphrase cannot be one; a passphrase is never shown.
        """
        if not 1 <= len(self.ssid.encode()) <= 32 or not self.ssid.isprintable():
            raise FlashError(f"the Wi-Fi name {self.ssid!r:.80} must have 1 to 32 printable bytes")
        if not HEX_KEY.fullmatch(self.secret) and not (
            8 <= len(self.secret) <= 63 and self.secret.isascii() and self.secret.isprintable()
        ):
            raise FlashError(
                f"the passphrase of {self.ssid} has {len(self.secret)} characters: 8 to 63 of ASCII it must be"
            )

    @property
    def access(self) -> dict[str, Any]:
        """As netplan has it. With WPA2 the card carries the key of this one network instead of the passphrase."""
        if self.sae:
            return {"auth": {"key-management": "sae", "password": self.secret}}
        if HEX_KEY.fullmatch(self.secret):
            return {"password": self.secret.lower()}
        return {"password": pbkdf2_hmac("sha1", self.secret.encode(), self.ssid.encode(), 4096, 32).hex()}


@dataclass(frozen=True)
class Seed:
    """What the user wants of the board's system."""

    hostname: str | None = None
    user: str | None = None
    ssh_keys: tuple[str, ...] = ()
    wifi: Wifi | None = None
    country: str | None = None

    def __post_init__(self) -> None:
        """Check it.

        Raises:
            FlashError: one cannot be what it should be.
        """
        if self.hostname is not None and not HOSTNAME.fullmatch(self.hostname):
            raise FlashError(
                f"--hostname {self.hostname!r:.80}: 1 to 63 letters, digits and '-', neither first nor last"
            )
        if self.user is not None and not USER.fullmatch(self.user):
            raise FlashError(
                f"--user {self.user!r:.80}: 1 to 32 small letters, digits, '-' and '_', beginning with a letter"
            )
        if self.user is not None and not self.ssh_keys:
            raise FlashError(f"nobody could log in as {self.user}: give --ssh-key with a public key, too")
        if self.country is not None and not re.fullmatch(r"[A-Z]{2}", self.country):
            raise FlashError(f"--country {self.country!r:.20}: two capital letters, such as DE")
        for key in self.ssh_keys:
            if not PUBLIC_KEY.fullmatch(key) or not key.isprintable():
                raise FlashError(f"{key[:20]!r}… is no public key of ssh")


def read_wifi(text: str) -> Wifi:
    """Read a Wi-Fi file: the network's name in the first line, the passphrase in the second, `wpa3` in a third where it must be.

    Raises:
        FlashError: it has other lines; they are not shown.
    """
    lines = text.splitlines()
    while lines and not lines[-1]:
        lines.pop()
    if len(lines) not in {2, 3} or (len(lines) == 3 and lines[2].strip().lower() != "wpa3"):
        raise FlashError(
            f"the Wi-Fi file has {len(lines)} lines: the network's name, its passphrase, and `wpa3` in a third line where it must be"
        )
    return Wifi(lines[0], lines[1], sae=len(lines) == 3)


def user_data(before: bytes | None, seed: Seed, claim: Claim, *, replace: bool = False) -> bytes:
    """Return user-data that starts the installer, with all that stood there before.

    Args:
        before: the file that is there.
        seed: what the user wants; it comes before what stands there.
        claim: whose board this is; its name is the host's where none is given and it can be one.
        replace: take nothing over from `before`.

    Raises:
        FlashError: what is there cannot be added to.
    """
    if replace or not (before or b"").strip():
        config: dict[str, Any] = {}
    else:
        config = _mapping("user-data", before or b"", "#cloud-config")
    hostname = seed.hostname or (None if "hostname" in config or not HOSTNAME.fullmatch(claim.name) else claim.name)
    if hostname:
        config["hostname"] = hostname
        config.setdefault("manage_etc_hosts", "localhost")
        config.pop("fqdn", None)  # it would come before the hostname
    if seed.user:
        _add_user(config, seed)
    elif seed.ssh_keys:
        _add(config, "ssh_authorized_keys", *seed.ssh_keys)
    wanted = [RUN_SSH] if seed.ssh_keys else []
    wanted += [RUN_WIFI] if seed.wifi else []
    _add(config, "runcmd", *wanted, RUN)
    return f"#cloud-config\n{_told(claim, seed)}{_dump(config)}".encode()


def meta_data(before: bytes | None, instance: str, *, replace: bool = False) -> bytes:
    """Return meta-data with another instance id, so that cloud-init runs on a board that it has run on before.

    Raises:
        FlashError: what is there cannot be added to.
    """
    config = {} if replace or not (before or b"").strip() else _mapping("meta-data", before or b"")
    for name in ("instance_id", "instance-id"):
        config.pop(name, None)
    return _dump({**config, "instance-id": instance}).encode()


def network_config(before: bytes | None, wifi: Wifi, country: str | None, *, replace: bool = False) -> bytes:
    """Return a network-config (netplan, version 2) that joins a Wi-Fi, with all that stood there before.

    Raises:
        FlashError: what is there cannot be added to.
    """
    found = {} if replace or not (before or b"").strip() else _mapping("network-config", before or b"")
    top = found if "version" in found else found.setdefault("network", {})
    if not isinstance(top, dict) or top.setdefault("version", 2) != 2:
        raise FlashError(_unlike("network-config", "is no netplan of version 2"))
    if not any(isinstance(value, dict) for value in top.values()):
        # A network-config takes the place of the system's own, which is DHCP on any cable.
        top["ethernets"] = {"cable": {"match": {"name": "e*"}, "dhcp4": True, "optional": True}}
    wlan = top.setdefault("wifis", {}) or {}
    top["wifis"] = wlan
    if not isinstance(wlan, dict) or not isinstance(wlan.setdefault("wlan0", {}), dict):
        raise FlashError(_unlike("network-config", "has wifis that are no mapping"))
    card = wlan["wlan0"]
    card.setdefault("dhcp4", True)
    card.setdefault("optional", True)
    if country:
        card["regulatory-domain"] = country
    if not isinstance(card.setdefault("access-points", {}), dict):
        raise FlashError(_unlike("network-config", "has access-points that are no mapping"))
    card["access-points"][wifi.ssid] = wifi.access
    return _dump(found).encode()


def command_line(before: bytes, instance: str, country: str | None) -> bytes:
    """Return cmdline.txt with an instance id that it has replaced, and with the country of the radio; else as it is."""
    text = before.decode("utf-8", "surrogateescape")
    text = INSTANCE.sub(rf"\g<1>{instance}", text)
    if country:
        first, newline, rest = text.partition("\n")
        first = f"{DOMAIN.sub('', first).rstrip()} cfg80211.ieee80211_regdom={country}"
        text = first + newline + rest
    return text.encode("utf-8", "surrogateescape")


def _mapping(name: str, data: bytes, first: str = "") -> dict[str, Any]:
    try:
        text = data.decode("utf-8-sig")
        if first and text.split("\n", 1)[0].strip() != first:
            raise FlashError(_unlike(name, f"does not begin with {first}"))
        found = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        raise FlashError(_unlike(name, f"is no YAML{f' in line {mark.line + 1}' if mark else ''}")) from None
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise FlashError(_unlike(name, "is no mapping of names to values"))
    return found


def _unlike(name: str, what: str) -> str:
    return f"the {name} that is there {what}, so nothing can be added to it: mend it, or give --replace to put ours in its place"


def _add(config: dict[str, Any], key: str, *values: Any) -> None:
    """Append to a list what is not in it."""
    found = config.get(key) or []
    if not isinstance(found, list):
        raise FlashError(_unlike("user-data", f"has a '{key}' that is no list"))
    config[key] = [value for value in found if value not in values] + list(values)


def _add_user(config: dict[str, Any], seed: Seed) -> None:
    users = config.get("users")
    users = ["default"] if users is None else users
    if not isinstance(users, list):
        raise FlashError(_unlike("user-data", "has 'users' that are no list"))
    there = next((one for one in users if isinstance(one, Mapping) and one.get("name") == seed.user), None)
    mine: dict[str, Any] = dict(there) if there else {
        "name": seed.user,
        "groups": ["adm", "sudo"],
        "shell": "/bin/bash",
        "lock_passwd": True,
        "sudo": "ALL=(ALL) NOPASSWD:ALL",
    }  # fmt: skip
    _add(mine, "ssh_authorized_keys", *seed.ssh_keys)
    config["users"] = [mine if one is there else one for one in users] if there else [*users, mine]


def _told(claim: Claim, seed: Seed) -> str:
    wifi = f"# * network-config: the key of the Wi-Fi {_plain(seed.wifi.ssid)}, also afterwards.\n" if seed.wifi else ""
    return (
        f"# Written by `cutlayer-export flash card` for the device {claim.name} of the fleet {claim.fleet}.\n"
        "# A FAT partition knows no owners. Whoever holds this card, or is a user of the board, can read on it:\n"
        f"# * until the first boot, {FOLDER}/claim.json: with it one board enrols as {claim.name}, once, "
        f"until {claim.until:%Y-%m-%d %H:%M} UTC. The first boot removes it.\n"
        f"{wifi}"
        "# Lost the card before its first boot? `cutlayer-hub revoke` the name.\n"
    )


def _plain(text: str) -> str:
    return text.encode("ascii", "backslashreplace").decode()


def _dump(config: dict[str, Any]) -> str:
    return yaml.safe_dump(config, sort_keys=False, allow_unicode=False, width=1000, default_flow_style=False)
