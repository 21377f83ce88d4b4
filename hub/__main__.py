"""The hub's commands: `cutlayer-hub demo|simulate|serve|report|example` (the same as `python -m hub …`)."""

import argparse
import errno
import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NoReturn

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

MISTAKE = 2
"""Exit code for what the user can mend."""


_OF_THE_EXTRA = ("torch", "onnx", "iotcore", "jinja2", "matplotlib", "rich")
"""What a hub needs beyond the base install, which is a device."""

_OF_THE_DISK = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EROFS)
"""A full or read-only disk may show at any write."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args(arguments)
    command, _ = COMMANDS[options.command]
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        return command(options)
    except KeyboardInterrupt:
        print(f"cutlayer-hub {options.command}: stopped", file=sys.stderr)
        return 130
    except ModuleNotFoundError as error:
        if error.name not in _OF_THE_EXTRA:
            raise
        print(
            f"cutlayer-hub {options.command}: {error.name} is not installed: pip install 'cutlayer[hub]'",
            file=sys.stderr,
        )
        return MISTAKE
    except Exception as error:
        if not isinstance(error, _mistakes()) and getattr(error, "errno", None) not in _OF_THE_DISK:
            raise
        print(f"cutlayer-hub {options.command}: {error}", file=sys.stderr)
        return MISTAKE


def _interrupt(*_signal: object) -> NoReturn:
    raise KeyboardInterrupt


def _demo(options: argparse.Namespace) -> int:
    """Train a fleet of device processes on this machine, print the table, write the report."""
    from hub import demo

    return _train(options, demo.run)


def _simulate(options: argparse.Namespace) -> int:
    """The same in one process: quicker, without a network, and without what only a process of its own can measure."""
    from hub import simulate

    return _train(options, simulate.run)


def _train(options: argparse.Namespace, run: Callable[[Any], None]) -> int:
    from hub import demo, outcome
    from hub.report import write_report

    _log("warning")
    wish = demo.Wish(
        folder=options.out or Path("runs") / time.strftime("%Y%m%d-%H%M%S"),
        devices=options.devices,
        rounds=options.rounds,
        strategy=options.strategy,
        options={**(demo.MODES[options.mode] if options.strategy == "adasplit" else {}), **dict(options.set)},
        dataset=options.dataset,
        windows=options.windows,
        new_wearers=options.new_wearers,
        classes_per_device=options.classes_per_device,
        data=options.data,
        model=options.model,
        cut=options.cut,
        bundle=options.bundle,
        references=not options.no_references,
        broker=options.broker,
        codec=options.codec,
        seed=options.seed,
        threads=options.threads,
        budget_megabytes=options.budget_mb,
        budget_gflops=options.budget_gflops,
    )
    run(wish)
    if options.reference:
        outcome.record_recorded(wish.folder, options.reference)
    outcome.show(wish.folder)
    print(f"\nreport: {write_report(wish.folder)}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    """Run a hub for devices that are started elsewhere."""
    from hub import config, outcome, server
    from hub.progress import progress
    from hub.report import write_report

    _log(options.log_level)
    settings = config.load(options.config, os.environ)
    with server.broker(settings) as url, progress(settings.run.rounds, ()) as shown:
        shown.note(f"devices of fleet {settings.fleet.name!r} are awaited at {url}")
        server.serve(settings, url, shown, resume=options.resume)
    outcome.show(settings.run.folder)
    print(f"\nreport: {write_report(settings.run.folder)}")
    return 0


def _report(options: argparse.Namespace) -> int:
    """Write report.html of a run's folder again and print its table."""
    from hub import outcome
    from hub.report import write_report

    outcome.show(options.folder)
    print(f"\nreport: {write_report(options.folder)}")
    return 0


def _example(options: argparse.Namespace) -> int:
    """Print an annotated configuration to start from."""
    from hub import config

    print(config.describe(options.strategy), end="")
    return 0


def _demo_arguments(parser: argparse.ArgumentParser) -> None:
    _train_arguments(parser)
    parser.add_argument("--broker", default="embedded", help="embedded, mosquitto, or the URL of one that runs")


def _simulate_arguments(parser: argparse.ArgumentParser) -> None:
    _train_arguments(parser)
    parser.set_defaults(broker="embedded")  # of which nothing is started


def _train_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--devices", type=_positive, default=10, help="devices that train (10)")
    add("--rounds", type=_positive, help="rounds (40 on the scarce task, 20 on all windows)")
    add("--strategy", default="adasplit", help="who sends what and when (adasplit)")
    add("--mode", choices=("ours", "paper"), default="ours", help="options of adasplit: ours, or the paper's exactly")
    add("--set", type=_setting, action="append", default=[], metavar="OPTION=VALUE", help="an option of the strategy")
    add("--dataset", default="wearables", help="wearables, digits, idx, cifar or package.module:function")
    windows = "labelled windows: five of each class in a row (scarce), five spread over the time (spread), or all"
    add("--windows", choices=("scarce", "spread", "all"), default="scarce", help=windows)
    add("--new-wearers", type=int, default=0, help="wearers left out of training and only tested (0)")
    add("--classes-per-device", type=_positive, help="classes a device has, for idx and cifar")
    add("--data", type=Path, help="folder with IDX or CIFAR files")
    add("--model", help="package.module:factory of your own model")
    add("--cut", help="layer to cut after")
    add("--bundle", type=Path, help="folder of a bundle that is already built")
    add("--no-references", action="store_true", help="do not train each device alone for comparison")
    add("--codec", default="float32", help="float32, float16 or quantised:K (float32)")
    add("--seed", type=int, default=0)
    add("--threads", type=_positive, default=1, help="threads of the hub (1)")
    add("--budget-mb", type=float, help="megabytes a device may send, for the C3-Score")
    add("--budget-gflops", type=float, help="billions of multiply-adds a device may spend, for the C3-Score")
    add("--out", type=Path, help="folder of the run (runs/<time>)")
    add("--reference", type=Path, help="folder of recorded results for the reference rows")


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("hub.toml"), help="configuration file (hub.toml)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the run's folder")
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder of a run")


def _example_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strategy", default="adasplit", help="whose options to show (adasplit)")


COMMANDS: dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "demo": (_demo, _demo_arguments),
    "simulate": (_simulate, _simulate_arguments),
    "serve": (_serve, _serve_arguments),
    "report": (_report, _report_arguments),
    "example": (_example, _example_arguments),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cutlayer-hub", description="The hub's side of split learning.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, (function, arguments) in COMMANDS.items():
        text = (function.__doc__ or "").strip()
        arguments(commands.add_parser(name, help=text, description=text))
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not OPTION=VALUE")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _mistakes() -> tuple[type[Exception], ...]:
    """What a plain sentence answers; everything else is a fault of ours and keeps its traceback."""
    from edge.link import LinkError
    from edge.wire.toml_fields import ConfigError
    from export.errors import ExportError
    from hub.broker import BrokerError
    from hub.datasets import DatasetError
    from hub.demo import DemoError
    from hub.orchestrator import FleetError
    from hub.outcome import OutcomeError
    from hub.server import RunError
    from hub.store import StoreError

    return (
        BrokerError, ConfigError, DatasetError, DemoError, ExportError, FleetError, LinkError, OutcomeError, RunError, StoreError,
    )  # fmt: skip


def _log(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
