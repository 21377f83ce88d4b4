"""Options of `cutlayer-hub rollout`."""

import argparse
from pathlib import Path

from hub.rollout.gate import Margins
from hub.rollout.rollout import Times

WAIT_SECONDS = 3600.0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Add them."""
    add = parser.add_argument
    add("release", nargs="?", type=Path, metavar="FILE.release", help="as cutlayer-export flash bundle makes it")
    add("--to", default="canary,10%,all", help="stages: canary, shares like 10%%, all (canary,10%%,all)")
    add("--only", nargs="+", action="extend", default=[], metavar="NAME", help="these devices only")
    add("--canary", nargs="+", action="extend", default=[], metavar="NAME", help="who is first (one device by chance)")
    add("--config", type=Path, default=Path("hub.toml"), help="configuration file of the hub (hub.toml)")
    add("--folder", type=Path, help="the fleet's folder (fleet, beside the configuration)")
    add("--key", type=Path, help="public key of releases (release.pub in the fleet's folder)")
    add("--broker", metavar="URL", help="the broker's address, where the configuration does not tell it")
    add("--pause", action="store_true", help="end after the stage in hand; the same command goes on with the next")
    add(
        "--hold",
        type=_seconds,
        default=Times.hold,
        metavar="SECONDS",
        help=_by_default("a device must be well for", Times.hold),
    )
    add("--trial", type=_seconds, default=Times.trial, metavar="SECONDS",
        help=_by_default("in which a device that has the release must become well", Times.trial))  # fmt: skip
    add("--wait", type=_seconds, default=WAIT_SECONDS, metavar="SECONDS",
        help=_by_default("without any news before the command ends; run again it goes on", WAIT_SECONDS))  # fmt: skip
    add("--gather", type=_seconds, default=Times.gather, help=argparse.SUPPRESS)
    add("--state", type=_seconds, default=Times.state, help=argparse.SUPPRESS)
    slower, worse = Margins.slower, Margins.worse
    add("--slower", type=_seconds, default=slower, metavar="TIMES", help=f"as long as a step may take ({slower:g})")
    add("--worse", type=_seconds, default=worse, metavar="SHARE", help=f"by which the loss may be higher ({worse:g})")
    add("--status", action="store_true", help="show where the last rollout stands, and end")
    add("--stop", action="store_true", help="end the last rollout for good: nobody is offered its release any more")


def _by_default(text: str, value: float) -> str:
    return f"{text} ({value:g})"


def _seconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1.0
    if not 0 <= number <= 1e7:
        raise argparse.ArgumentTypeError(f"{text} is not a number from 0 to 1e7")
    return number
