"""The device's commands: `cutlayer run|check|profile|status|example` (the same as `python -m edge …`)."""

import argparse
import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from edge.mistakes import FAULT, MISTAKE, mistakes

# Before anything can import onnxruntime: its Linux wheels report to their vendor unless this is set first.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    from edge.processor import ProcessorError

    options = _parser().parse_args(arguments)
    command, _ = COMMANDS[options.command]
    try:
        return command(options)
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        # The other mistakes come from files that import what would kill this process now.
        if not isinstance(error, ProcessorError) and not isinstance(error, mistakes()):
            raise
        print(f"cutlayer {options.command}: {error}", file=sys.stderr)
        return MISTAKE


def _run(options: argparse.Namespace) -> int:
    """Train with the hub until told to stop."""
    from edge import config, processor
    from edge.files import Files

    settings = config.load(options.config, os.environ)
    _log(settings.run.log_level)
    processor.probe_once(settings.device.state_directory, Files(Path("/")))
    from edge import device  # what the probe has tried

    stop = _Stop()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    profile = (sys.executable, "-m", "edge", "profile", "--config", str(options.config.absolute()))
    device.run(settings, stop, profile)
    return 0


def _check(options: argparse.Namespace) -> int:
    """Say whether this board can run this configuration, without a hub."""
    from edge import check, config

    settings = config.load(options.config, os.environ)
    return 0 if check.check(settings, print) else FAULT


def _status(options: argparse.Namespace) -> int:
    """Show what the state directory remembers."""
    from edge import config, device

    for line in device.status(config.load(options.config, os.environ)):
        print(line)
    return 0


def _example(_options: argparse.Namespace) -> int:
    """Print an annotated configuration to start from."""
    from edge import config

    print(config.describe(), end="")
    return 0


def _profile(options: argparse.Namespace) -> int:
    """Measure what a bundle costs on this board: time, memory, joules and bytes of every stage of a step."""
    from edge.profile import command

    return command.run(options)


def _with_profile(parser: argparse.ArgumentParser) -> None:
    from edge.profile import command

    command.arguments(parser)


def _with_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("device.toml"), help="configuration file (device.toml)")


def _without(_parser: argparse.ArgumentParser) -> None:
    pass


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "run": (_run, _with_config),
    "check": (_check, _with_config),
    "profile": (_profile, _with_profile),
    "status": (_status, _with_config),
    "example": (_example, _without),
}


class _Stop:
    """True once a signal has asked the process to end; a second one ends it at once."""

    def __init__(self) -> None:
        self._asked = False

    def __call__(self, *_signal: object) -> bool:
        if _signal:
            if self._asked:
                raise KeyboardInterrupt
            self._asked = True
        return self._asked


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cutlayer", description="The device side of split learning.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (function, arguments) in COMMANDS.items():
        text = (function.__doc__ or "").strip()
        arguments(commands.add_parser(name, help=text, description=text))
    return parser


def _log(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
