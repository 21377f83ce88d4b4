"""`cutlayer-hub profile …`: its commands and their options."""

import argparse
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from hub.profile import fleet_options


def command(options: argparse.Namespace) -> int:
    """Run one; returns the exit code."""
    return COMMANDS[options.profile][0](options)


def arguments(parser: argparse.ArgumentParser) -> None:
    """The commands and the options of each."""
    commands = parser.add_subparsers(dest="profile", required=True, metavar="COMMAND", parser_class=Passing)
    for name, (function, add) in COMMANDS.items():
        text = (function.__doc__ or "").strip()
        add(commands.add_parser(name, help=text, description=text))


class Passing(argparse.ArgumentParser):
    """Keeps what stands behind `--` apart, as `passed`; argparse would lose it to a positional argument before it."""

    def parse_known_args(  # type: ignore[override]
        self, args: Sequence[str] | None = None, namespace: Any = None
    ) -> tuple[argparse.Namespace, list[str]]:
        """As it says there."""
        given = list(args or ())
        at = given.index("--") if "--" in given else len(given)
        found, rest = super().parse_known_args(given[:at], namespace)
        found.passed = tuple(given[at + 1 :])
        return found, rest


def _page(options: argparse.Namespace) -> int:
    """Write a page that shows profiles of boards, side by side if there are several."""
    from hub.profile import page, read

    paths = [*options.profiles, *map(Path, options.passed)]
    print(f"page: {page.save(options.out, page.render(read.load(paths)))}")
    return 0


def _page_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("profiles", type=Path, nargs="+", metavar="PROFILE.json", help="as cutlayer profile writes it")
    parser.add_argument("--out", type=Path, default=Path("page.html"), help="file of the page (page.html)")


def _ssh(options: argparse.Namespace) -> int:
    """Profile a board over ssh, and write its profile.json and page.html."""
    from hub.profile import ssh

    visit = ssh.Visit(
        target=options.target,
        command=options.remote,
        bundle=options.bundle,
        config=options.config,
        arguments=options.passed,
        ssh_options=tuple(options.ssh_option),
    )
    out = options.out or ssh.folder_for(options.target, datetime.now().astimezone())
    found = ssh.profile(visit, out)
    print(f"profile: {out / 'profile.json'}\npage: {out / 'page.html'}")
    return 0 if found.stages else 1


def _ssh_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    parser.usage = "cutlayer-hub profile ssh TARGET [options] [-- options of cutlayer profile on the board]"
    add("target", metavar="TARGET", help="the board, as ssh takes it: user@host, or a name of ~/.ssh/config")
    add("--bundle", type=Path, help="device.bundle of this machine, sent along (what the board's configuration names)")
    add("--config", metavar="PATH", help="configuration on the board (what cutlayer profile there takes by itself)")
    add("--command", dest="remote", default="cutlayer", metavar="PATH", help="cutlayer on the board (cutlayer)")
    text = "for ssh: Port=2222 becomes -o Port=2222; --ssh-option=-p2222 stays as it is; may be repeated"
    add("--ssh-option", action="append", default=[], metavar="OPTION", help=text)
    add("--out", type=Path, metavar="DIR", help="folder of profile.json and page.html (profiles/<target>-<date>)")


def _fleet(options: argparse.Namespace) -> int:
    """Profile the boards of a fleet through its hub, between two runs."""
    from hub.profile import fleet

    return fleet.command(options)


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "page": (_page, _page_arguments),
    "ssh": (_ssh, _ssh_arguments),
    "fleet": (_fleet, fleet_options.arguments),
}
"""By name: what runs, and its options."""
