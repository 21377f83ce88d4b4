"""The topic tree: frames up and down, and who is there.

* `cutlayer/FLEET/hub/status`: retained; is the hub there, and which process is it
* `cutlayer/FLEET/DEVICE/status`: retained; the same of a device, whose last will says offline
* `cutlayer/FLEET/DEVICE/up`: frames from the device
* `cutlayer/FLEET/DEVICE/down`: frames to the device
* `cutlayer/FLEET/DEVICE/profile/up`, `…/profile/mark`: what `cutlayer profile` sends to see how long that takes. Nobody hears the
  first; the second comes back to the device
* `cutlayer/FLEET/DEVICE/update/offer`, `…/want`, `…/piece`, `…/state`: a release on its way to the device, see `updates.py`
"""

import json
import re
from functools import lru_cache

from edge.wire.frames import U32, WireError

ROOT = "cutlayer"
HUB = "hub"
LEAVES = ("up", "down", "status")
UPDATE = ("offer", "want", "piece", "state")

_NAME = re.compile(r"[A-Za-z0-9_.-]{1,64}")


def check_name(name: str, what: str = "device") -> str:
    """The name itself, when it can be a level of a topic.

    Raises:
        WireError: it has other characters than letters, digits, `_`, `.`, `-`, is too long, or is the hub's.
    """
    if not _NAME.fullmatch(name):
        raise WireError(f"{what} name {name!r:.80} is not 1 to 64 letters, digits, '_', '.' or '-'", "name")
    if name == HUB and what == "device":
        raise WireError(f"a device cannot be named {HUB!r}", "name")
    return name


def up(fleet: str, device: str) -> str:
    """Where a device's frames go."""
    return _topic(fleet, device, "up")


def down(fleet: str, device: str) -> str:
    """Where frames to a device go."""
    return _topic(fleet, device, "down")


def profile(fleet: str, device: str, leaf: str) -> str:
    """Where `cutlayer profile` sends: `up` for what is measured, `mark` for what tells that the broker has it."""
    return f"{_topic(fleet, device, 'profile')}/{leaf}"


def update(fleet: str, device: str, leaf: str) -> str:
    """Where a release is offered (`offer`), asked for (`want`), sent (`piece`) and told of (`state`)."""
    return f"{_topic(fleet, device, 'update')}/{leaf}"


def status(fleet: str, device: str) -> str:
    """Where a device's retained `{"online": bool, "instance": n}` lies."""
    return _topic(fleet, device, "status")


# A topic is made or read for every frame that goes or comes, and there are few of them.
_remembered = lru_cache(maxsize=16_384)


@_remembered
def hub_status(fleet: str) -> str:
    """Where the hub's retained `{"online": bool, "instance": n}` lies."""
    return f"{ROOT}/{check_name(fleet, 'fleet')}/{HUB}/status"


def pack_status(*, online: bool, instance: int) -> bytes:
    """What lies on a status topic."""
    return json.dumps({"online": online, "instance": instance}).encode()


def read_status(payload: bytes) -> tuple[bool, int]:
    """Whether somebody is there, and which process.

    Raises:
        WireError: it is no status.
    """
    try:
        status = json.loads(payload)
        online, instance = status["online"], status["instance"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise WireError(f"{payload[:40]!r} is no status", "status") from error
    if type(online) is not bool or type(instance) is not int or not 0 <= instance <= U32:
        raise WireError(f"a status with online = {online!r:.20} and instance = {instance!r:.20}", "status")
    return online, instance


def subscriptions_of_hub(fleet: str) -> tuple[str, ...]:
    """What a hub listens to."""
    return tuple(f"{ROOT}/{check_name(fleet, 'fleet')}/+/{leaf}" for leaf in ("up", "status"))


def subscriptions_of_device(fleet: str, device: str) -> tuple[str, ...]:
    """What a device listens to."""
    return down(fleet, device), hub_status(fleet)


def subscriptions_of_updates(fleet: str, device: str) -> tuple[str, ...]:
    """What a device listens to for releases, beside the rest."""
    return update(fleet, device, "offer"), update(fleet, device, "piece")


def subscriptions_of_rollout(fleet: str) -> tuple[str, ...]:
    """What `cutlayer-hub rollout` listens to."""
    root = f"{ROOT}/{check_name(fleet, 'fleet')}/+"
    return f"{root}/status", f"{root}/update/want", f"{root}/update/state"


@_remembered
def parse_update(fleet: str, topic: str) -> tuple[str, str]:
    """The device and the leaf of a topic of updates.

    Raises:
        WireError: it is none in this fleet.
    """
    parts = topic.split("/")
    if len(parts) != 5 or parts[:2] != [ROOT, fleet] or parts[3] != "update" or parts[4] not in UPDATE:
        raise WireError(f"{topic!r:.200} is no topic of updates in fleet {fleet!r}", "topic")
    return check_name(parts[2]), parts[4]


@_remembered
def parse(fleet: str, topic: str) -> tuple[str, str]:
    """The device and the leaf (`up`, `down` or `status`) of a topic.

    Raises:
        WireError: it is no device's topic in this fleet.
    """
    root, _, rest = topic.partition("/")
    parts = rest.split("/")
    if root != ROOT or len(parts) != 3 or parts[0] != fleet or parts[2] not in LEAVES:
        raise WireError(f"{topic!r:.200} is no topic of fleet {fleet!r}", "topic")
    return check_name(parts[1]), parts[2]


@_remembered
def _topic(fleet: str, device: str, leaf: str) -> str:
    return f"{ROOT}/{check_name(fleet, 'fleet')}/{check_name(device)}/{leaf}"
