"""The hub's commands: `cutlayer-hub demo|simulate|serve|enrol|devices|rollout|…` (the same as `python -m hub …`)."""

import argparse
import errno
import json
import logging
import os
import signal
import sys
import textwrap
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NoReturn

os.environ["ORT_DISABLE_TELEMETRY"] = "1"

MISTAKE = 2
"""Exit code for what the user can mend."""


_OF_THE_EXTRA = ("torch", "onnx", "cryptography", "iotcore", "jinja2", "matplotlib", "rich")
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
        weights_codec=options.weights_codec,
        evaluation_codec=options.evaluation_codec,
        seed=options.seed,
        threads=options.threads,
        budget=dict(options.budget),
        known=dict(options.known),
        c3_megabytes=options.c3_mb,
        c3_gflops=options.c3_gflops,
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
    with ExitStack() as down:
        shown = down.enter_context(progress(settings.run.rounds, ()))
        if options.tls:
            from hub.trust import serving

            settings = down.enter_context(serving.beside(settings, shown.note))
        url = down.enter_context(server.broker(settings))
        shown.note(f"devices of fleet {settings.fleet.name!r} are awaited at {url}")
        server.serve(settings, url, shown, resume=options.resume, patient=options.tls)
    outcome.show(settings.run.folder)
    print(f"\nreport: {write_report(settings.run.folder)}")
    return 0


def _keys(options: argparse.Namespace) -> int:
    """Make the fleet's authority and keys, where there are none, and show what there is."""
    return _trust("keys", options)


def _enrol(options: argparse.Namespace) -> int:
    """Make a claim: a file that lets one board into the fleet, once."""
    return _trust("enrol", options)


def _devices(options: argparse.Namespace) -> int:
    """Show who belongs to the fleet: claims and certificates."""
    return _trust("devices", options)


def _status(options: argparse.Namespace) -> int:
    """Show who is online now, and whose certificate ends when."""
    return _trust("status", options)


def _revoke(options: argparse.Namespace) -> int:
    """Put a device out for good: its certificates, its claims, its open connection."""
    return _trust("revoke", options)


def _trust(name: str, options: argparse.Namespace) -> int:
    from hub.trust import command

    _log("warning")
    return command.COMMANDS[name](options)


def _report(options: argparse.Namespace) -> int:
    """Write report.html of a run's folder again and print its table."""
    from hub import outcome
    from hub.report import write_report

    outcome.show(options.folder)
    print(f"\nreport: {write_report(options.folder)}")
    return 0


def _trial(options: argparse.Namespace) -> int:
    """Train behind bad links that this machine emulates (run), say what they did (report), show what there is (list)."""
    return TRIAL[options.trial][0](options)


def _trial_run(options: argparse.Namespace) -> int:
    """Train a fleet behind the links of a scenario, and report."""
    from hub import demo
    from hub.report import write_report
    from hub.trial import run

    _log("warning")
    trial = run.Trial(
        scenario=options.scenario,
        means=options.means,
        congestion=options.congestion,
        seed=options.seed,
        turn_seconds=options.turn_seconds,
        grace_seconds=options.grace_seconds,
        codec=options.codec,
        evaluation_codec=options.evaluation_codec,
        evaluate_every=options.evaluate_every,
    )
    wish = demo.Wish(
        folder=options.out or Path("runs") / time.strftime(f"%Y%m%d-%H%M%S-{Path(options.scenario).stem}"),
        devices=options.devices,
        rounds=options.rounds,
        strategy=options.strategy,
        options={**(demo.MODES["ours"] if options.strategy == "adasplit" else {}), **dict(options.set)},
        dataset=options.dataset,
        windows=options.windows,
        data=options.data,
        bundle=options.bundle,
        references=False,
        broker=options.broker,
        seed=options.seed or 0,
    )
    run.run(trial, wish)
    write_report(wish.folder)
    against = run.run_perfect(trial, wish) if options.and_perfect else None
    return _show_trial(wish.folder, against)


def _trial_report(options: argparse.Namespace) -> int:
    """Print what a trial came to, and write trial.html."""
    return _show_trial(options.folder, options.against)


def _show_trial(folder: Path, against: Path | None) -> int:
    from hub.trial import page, report

    found = report.read(folder, against)
    print(report.render(found), end="")
    print(f"\nreport: {page.write(found)}")
    return 0


def _trial_replay(options: argparse.Namespace) -> int:
    """Run a device's recording again on this machine, and say whether it does the same."""
    from hub.trial import replay

    return replay.command(options)


def _trial_replay_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("path", type=Path, help="a device's recorder folder (state/recorder), or one file of it")
    add("--bundle", type=Path, help="the device's bundle; with --data the whole device runs again, training included")
    add("--data", help="the device's data, as [data] source of its configuration names it")
    add("--print", dest="timeline", action="store_true", help="tell what happened")


def _trial_list(_options: argparse.Namespace) -> int:
    """Show the scenarios that come with the package, and their sources."""
    from hub.trial import plan, scenario

    for name in scenario.library():
        found = scenario.load(name)
        for text, indent in ((plan.in_words(found), f"{name:<14}"), (found.source, " " * 14)):
            print(textwrap.fill(text, 80, initial_indent=indent, subsequent_indent=" " * 14))
    return 0


def _profile(options: argparse.Namespace) -> int:
    """Profile a board over ssh (ssh), the boards of a fleet (fleet), show profiles as a page (page)."""
    from hub.profile import command

    return command.command(options)


def _profile_arguments(parser: argparse.ArgumentParser) -> None:
    from hub.profile import command

    command.arguments(parser)


def _rollout(options: argparse.Namespace) -> int:
    """Send a signed release to the fleet's boards in stages; it stops by itself where they are worse off with it."""
    from hub.rollout import command

    return command.command(options)


def _rollout_arguments(parser: argparse.ArgumentParser) -> None:
    from hub.rollout import options

    options.arguments(parser)


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
    add("--codec", default="float32", help="float32, float16, entropy:K or quantised:K (float32)")
    add("--weights-codec", default="float32", metavar="CODEC", help="the same for weights, or uniform:BITS (float32)")
    add("--evaluation-codec", default="float32", metavar="CODEC", help="the same for evaluation (float32)")
    add("--seed", type=int, default=0)
    add("--threads", type=_positive, default=1, help="threads of the hub (1)")
    budget = 'what each device may spend, like "up_per_run=200 kB"; see [budget] of cutlayer-hub serve'
    add("--budget", type=_amount, action="append", default=[], metavar="KEY=AMOUNT", help=budget)
    known = 'which samples are not sent again, like "skip_below=0.2"; see [known] of cutlayer-hub serve'
    add("--known", type=_setting, action="append", default=[], metavar="KEY=VALUE", help=known)
    add("--c3-mb", type=float, help="megabytes of the C3-Score's budget")
    add("--c3-gflops", type=float, help="billions of multiply-adds of the C3-Score's budget")
    add("--out", type=Path, help="folder of the run (runs/<time>)")
    add("--reference", type=Path, help="folder of recorded results for the reference rows")


def _serve_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("hub.toml"), help="configuration file (hub.toml)")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoint in the run's folder")
    tls = (
        "for boards elsewhere: the fleet's own authority, mosquitto with a certificate for each, and enrolment ([tls])"
    )
    parser.add_argument("--tls", action="store_true", help=tls)
    parser.add_argument("--log-level", default="info", choices=("debug", "info", "warning", "error"))


def _fleet_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--config", type=Path, default=Path("hub.toml"), help="configuration file (hub.toml)")


def _enrol_arguments(parser: argparse.ArgumentParser) -> None:
    _fleet_arguments(parser)
    add = parser.add_argument
    add("--name", required=True, help="the device's name, unlike that of any other")
    add("--board", default="generic-arm64", help="kind of board, as cutlayer-export flash knows it (generic-arm64)")
    add("--hours", type=float, default=24.0, help="how long the claim lasts (24)")
    add("--out", type=Path, help="the claim file (NAME.claim)")


def _revoke_arguments(parser: argparse.ArgumentParser) -> None:
    _fleet_arguments(parser)
    parser.add_argument("name", help="the device's name")


def _report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder of a run")


def _trial_arguments(parser: argparse.ArgumentParser) -> None:
    _add_commands(parser, "trial", TRIAL)


def _trial_run_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("scenario", help="a name of the library (cutlayer-hub trial list), or a TOML file")
    add("--devices", type=_positive, default=4, help="devices, each behind a link of its own (4)")
    add("--rounds", type=_positive, help="rounds (40 on the scarce task, 20 on all windows)")
    add("--strategy", default="adasplit", help="who sends what and when (adasplit)")
    add("--set", type=_setting, action="append", default=[], metavar="OPTION=VALUE", help="an option of the strategy")
    add("--dataset", default="wearables", help="wearables, digits, idx or cifar (wearables)")
    add("--windows", choices=("scarce", "spread", "all"), default="scarce", help="labelled windows (scarce)")
    add("--data", type=Path, help="folder with IDX or CIFAR files")
    add("--bundle", type=Path, help="folder of a bundle that is already built")
    add("--codec", help="float32, float16, entropy:K or quantised:K (float32; on a slow link entropy:0.5)")
    add("--evaluation-codec", metavar="CODEC", help="the same for evaluation, which moves most bytes")
    add("--broker", default="embedded", help="embedded or mosquitto, on the hub's side of the links")
    means = "tc netem, our emulator in namespaces or a relay; auto: netem where it does what the scenario says (auto)"
    add("--means", choices=("auto", "netem", "emulator", "relay"), default="auto", help=means)
    add("--congestion", help="congestion control of every TCP, cubic or bbr, where the kernel has it")
    add("--turn-seconds", type=float, help="deadline of a turn (chosen from the scenario)")
    add("--grace-seconds", type=float, help="wait for a device that has gone (chosen from the scenario)")
    every = "rounds between evaluations; 0: after the last round only (1; on a slow link more)"
    add("--evaluate-every", type=int, metavar="ROUNDS", help=every)
    add("--seed", type=int, help="of the training and of the links' chance (0, and what the scenario says)")
    add("--and-perfect", action="store_true", help="run the same on a link without faults, to compare")
    add("--out", type=Path, help="folder of the trial (runs/<time>-<scenario>)")


def _trial_report_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, help="folder of a trial")
    parser.add_argument("--against", type=Path, help="folder of the same on perfect (FOLDER/perfect, if there is one)")


def _no_arguments(_parser: argparse.ArgumentParser) -> None:
    pass


def _example_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--strategy", default="adasplit", help="whose options to show (adasplit)")


Commands = dict[str, tuple[Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]]

COMMANDS: Commands = {
    "demo": (_demo, _demo_arguments),
    "simulate": (_simulate, _simulate_arguments),
    "serve": (_serve, _serve_arguments),
    "rollout": (_rollout, _rollout_arguments),
    "keys": (_keys, _fleet_arguments),
    "enrol": (_enrol, _enrol_arguments),
    "devices": (_devices, _fleet_arguments),
    "status": (_status, _fleet_arguments),
    "revoke": (_revoke, _revoke_arguments),
    "report": (_report, _report_arguments),
    "trial": (_trial, _trial_arguments),
    "profile": (_profile, _profile_arguments),
    "example": (_example, _example_arguments),
}

TRIAL: Commands = {
    "run": (_trial_run, _trial_run_arguments),
    "report": (_trial_report, _trial_report_arguments),
    "replay": (_trial_replay, _trial_replay_arguments),
    "list": (_trial_list, _no_arguments),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cutlayer-hub", description="The hub's side of split learning.")
    _add_commands(parser, "command", COMMANDS)
    return parser


def _add_commands(parser: argparse.ArgumentParser, into: str, table: Commands) -> None:
    commands = parser.add_subparsers(dest=into, required=True, metavar="COMMAND")
    for name, (function, arguments) in table.items():
        text = (function.__doc__ or "").strip()
        arguments(commands.add_parser(name, help=text, description=text))


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _amount(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=AMOUNT")
    return name, value


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
    from edge.release.manifest import ReleaseError
    from edge.wire.profile import ProfileError
    from edge.wire.toml_fields import ConfigError
    from export.errors import ExportError
    from hub.broker import BrokerError
    from hub.datasets import DatasetError
    from hub.demo import DemoError
    from hub.orchestrator import FleetError
    from hub.outcome import OutcomeError
    from hub.profile.page import PageError
    from hub.rollout.plan import RolloutError
    from hub.server import RunError
    from hub.store import StoreError
    from hub.trial.net import NetError
    from hub.trial.run import TrialError
    from hub.trust.errors import TrustError

    return (
        BrokerError, ConfigError, DatasetError, DemoError, ExportError, FleetError, LinkError, NetError, OutcomeError, PageError,
        ProfileError, ReleaseError, RolloutError, RunError, StoreError, TrialError, TrustError,
    )  # fmt: skip


def _log(level: str) -> None:
    logging.basicConfig(level=level.upper(), format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
