"""`cutlayer-hub profile …`: its commands and their options."""

import argparse
from collections.abc import Callable

from hub.profile import fleet_options


def command(options: argparse.Namespace) -> int:
    """Run one; returns the exit code."""
    return COMMANDS[options.profile][0](options)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The commands and the options of each."""
    commands = parser.add_subparsers(dest="profile", required=True, metavar="COMMAND")
    for name, (function, add) in COMMANDS.items():
        text = (function.__doc__ or "").strip()
        add(commands.add_parser(name, help=text, description=text))


def _fleet(options: argparse.Namespace) -> int:
    """Profile the boards of a fleet through its hub, between two runs."""
    from hub.profile import fleet

    return fleet.command(options)


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "fleet": (_fleet, fleet_options.arguments),
}
"""By name: what runs, and its options."""
