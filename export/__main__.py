"""Commands of the workstation: where a model may be cut, build a bundle, check the graphs against PyTorch."""

import argparse
import ast
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edge.release.manifest import ReleaseError
from export.errors import ExportError

if TYPE_CHECKING:
    from export.bundle import BuildSpec
    from export.check import Report

_OF_THE_EXTRA = ("torch", "onnx", "yaml", "cryptography")
"""What the exporter needs beyond the base install, which is a device."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, 1 for a failed check, 2 for the user's mistake."""
    sys.path.insert(0, "")  # the user's own package.module:factory lies in the folder the command is called from
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except (ExportError, ReleaseError) as error:
        print(f"cutlayer-export: {error}", file=sys.stderr)
        return 2
    except ModuleNotFoundError as error:
        if error.name not in _OF_THE_EXTRA:
            raise
        print(f"cutlayer-export: {error.name} is not installed: pip install 'cutlayer[export]'", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"cutlayer-export: {error.filename}: {error.strerror}", file=sys.stderr)
        return 2


def _cuts(arguments: argparse.Namespace) -> int:
    if arguments.data:
        from export.cuts.command import run

        return run(arguments)
    _refuse_without_data(arguments)
    from export.bundle import example_input
    from export.cost import cuts
    from export.cut import load_factory

    model = load_factory(arguments.model, **dict(arguments.with_ or ()))
    found = cuts(model, example_input(model, arguments.input, arguments.dtype))
    rows = [
        (
            cut.name,
            "x".join(str(dim) for dim in cut.cost.smashed_shape),
            _bytes(cut.cost.smashed_bytes),
            f"{cut.cost.parameters:,}",
            _count(cut.cost.forward),
            _count(cut.cost.training),
            _bytes(cut.cost.activation_bytes),
        )
        for cut in found
    ]
    print(table(("cut", "smashed", "sent", "params", "forward", "step", "memory"), rows))
    print("Per sample, below the cut: float32 bytes sent, parameters, multiply-adds forward")
    print("and in a training step (an estimate, without head), bytes of activations kept.")
    return 0


def _refuse_without_data(arguments: argparse.Namespace) -> None:
    """Raise for options that need measured bytes."""
    for name in ("board", "link", "budget", "max_leak", "json", "plot", "profile", "codec", "only"):
        if getattr(arguments, name) is not None:
            option = name.replace("_", "-")
            raise ExportError(
                f"--{option} needs calibration data to measure with: give --data FILE.npz or --data package.module:function"
            )


def _build(arguments: argparse.Namespace) -> int:
    from export.bundle import build

    if arguments.max_leak is not None:
        from export.cuts.refusal import refuse_leak

        seen = refuse_leak(
            _spec(arguments), arguments.data, arguments.codec, arguments.max_leak, arguments.leak_seconds
        )
        print(f"leak {seen.worst[1]:.2f} ({seen.worst[0]}, {seen.codec}), within the limit of {arguments.max_leak:g}")
    from export.tuning import Effort, read

    recorded = read(arguments.choices) if arguments.choices else None
    effort = Effort() if arguments.tune and recorded is None else None
    built = build(_spec(arguments), arguments.out, tuning=recorded, effort=effort)
    manifest = built.manifest
    print(f"{built.device}  {_bytes(built.device.stat().st_size)}, graphs {', '.join(manifest.graphs)}")
    print(f"{built.hub}  {_bytes(built.hub.stat().st_size)}")
    print(f"bundle {built.id}")
    if manifest.tuning:
        print(tuning_line(manifest.tuning, measured=effort is not None))
    check = manifest.check
    print(
        f"checked against PyTorch float64: gradients within {check['gradient']:.1e} (float32: {check['gradient_float32']:.1e})"
    )
    if check["excused"]:
        print(
            f"{check['excused']} further gradients up to {check['excused_gradient']:.1e}, kinks or rounding: see the command check"
        )
    return 0


def tuning_line(tuning: Mapping[str, Any], *, measured: bool) -> str:
    """Return in one line what was chosen and where it was measured."""
    choices = tuning["choices"]
    other = [choice for choice in choices if choice["formulation"] != choice["usual"]]
    least = f", the fastest at {min(choice['ratio'] for choice in other):.2f} of the usual time" if other else ""
    source = "measured" if measured else "recorded"
    machine = tuning["measured"]["machine"]["model"]
    return f"formulations {source} on {machine}: {len(other)} of {len(choices)} other than usual{least}"


def _check(arguments: argparse.Namespace) -> int:
    from export.bundle import prepare
    from export.check import check_graphs
    from export.graphs import make_graph

    steps = prepare(_spec(arguments)).steps
    graphs = {kind: make_graph(steps, kind) for kind in steps.learner.objective.kinds}
    report = check_graphs(steps, graphs)
    print(check_table(report, every=arguments.all))
    return 0 if report.passed else 1


def check_table(report: "Report", *, every: bool = False) -> str:
    """Return the comparisons as a table of at most 80 columns: the worst of each kind, or every one."""
    groups: dict[tuple[str, str], list[Any]] = {}
    for row in report.rows:
        what = row.what if every else row.what.partition(",")[0] + (", weights" if row.what.endswith("weights") else "")
        groups.setdefault((row.graph, what), []).append(row)
    rows, notes = [], []
    for (graph, what), members in groups.items():
        worst = max(members, key=lambda row: (not row.passed, not row.note, row.ours))
        shown = (f"{worst.ours:.1e}", "" if worst.control is None else f"{worst.control:.1e}", f"{worst.limit:.1e}")
        noted = [row for row in members if row.note]
        passed = all(row.passed for row in members)
        rows.append((graph, what[:34], *shown, "FAILED" if not passed else "ok *" if noted else "ok"))
        notes += [f"* {row.graph}: {row.what}: {row.ours:.1e}; {row.note}" for row in noted]
    text = table(("graph", "quantity", "graph-f64", "torch32-f64", "limit", ""), rows)
    return "\n".join([text, *notes])


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows as aligned text: the first two columns to the left, numbers to the right."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.ljust(width) if place < 2 else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return "\n".join([line(head), *(line(row) for row in rows)])


def _spec(arguments: argparse.Namespace) -> "BuildSpec":
    from export.bundle import BuildSpec

    return BuildSpec(
        model=arguments.model,
        cut=arguments.cut,
        objective=arguments.objective,
        optimizer=arguments.optimizer,
        arguments=dict(arguments.with_ or ()),
        input_shape=arguments.input,
        dtype=arguments.dtype,
        classes=arguments.classes,
        seed=arguments.seed,
        name=arguments.name,
    )


def _flash(arguments: argparse.Namespace) -> int:
    from export.flash.command import run

    return run(arguments)


def _flash_options(parser: argparse.ArgumentParser) -> None:
    from export.flash.command import add_options

    add_options(parser)


def _model_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--model",
        required=True,
        metavar="MODULE:FACTORY",
        help="what makes the torch.nn.Module, such as export.models:lenet",
    )
    parser.add_argument(
        "--with",
        dest="with_",
        action="append",
        type=_keyword,
        metavar="NAME=VALUE",
        help="argument for the factory, such as classes=10",
    )
    parser.add_argument(
        "--input", type=_shape, metavar="3,32,32", help="shape of one sample; not needed if the model has input_shape"
    )
    parser.add_argument("--dtype", choices=("float32", "int64"), help="type of the input; int64 is for token ids")


def _cuts_options(parser: argparse.ArgumentParser) -> None:
    from export.cuts.options import add_options

    _model_options(parser)
    add_options(parser)


def _build_options(parser: argparse.ArgumentParser) -> None:
    _model_options(parser)
    parser.add_argument("--cut", help="layer behind which to cut; see the command cuts")
    parser.add_argument("--objective", default="contrastive", help="what the device minimises (default: %(default)s)")
    parser.add_argument("--optimizer", default="adam", help="sgd, adam or adamw (default: %(default)s)")
    parser.add_argument("--classes", type=int, help="number of classes; read from the model's output by default")
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights (default: %(default)s)")
    parser.add_argument("--name", help="name of the bundle")


def _out_option(parser: argparse.ArgumentParser) -> None:
    _build_options(parser)
    parser.add_argument(
        "--out", type=Path, required=True, metavar="FOLDER", help="where device.bundle and hub.bundle are written"
    )
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--no-tune",
        dest="tune",
        action="store_false",
        help="measure nothing: take each convolution's usual formulation, so that every machine builds the same",
    )
    choice.add_argument(
        "--choices",
        type=Path,
        metavar="FILE",
        help="take the formulations recorded in this bundle or manifest.json instead of measuring here",
    )
    from export.cuts.options import add_leak_options

    add_leak_options(parser)


def _all_option(parser: argparse.ArgumentParser) -> None:
    _build_options(parser)
    parser.add_argument("--all", action="store_true", help="show every comparison, not the worst of each kind")


COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "cuts": ("list where a model can be cut, what each cut costs and gives away, and pick one", _cuts, _cuts_options),
    "build": ("write device.bundle and hub.bundle", _build, _out_option),
    "check": ("compare every graph with PyTorch", _check, _all_option),
    "flash": (
        "sign a release for a board and put it there: a card, over ssh, into an image's tree",
        _flash,
        _flash_options,
    ),
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="cutlayer-export", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (text, run, options) in COMMANDS.items():
        command = commands.add_parser(name, help=text, description=text)
        options(command)
        command.set_defaults(run=run)
    return parser


def _shape(text: str) -> tuple[int, ...]:
    dims = tuple(int(part) for part in text.replace("x", ",").split(","))
    if min(dims) < 1:
        raise argparse.ArgumentTypeError(f"{text} is not a shape: every dimension must be at least 1")
    return dims


def _keyword(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise argparse.ArgumentTypeError(f"'{text}' is not NAME=VALUE")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def _bytes(count: int) -> str:
    return (
        f"{count} B"
        if count < 10_000
        else f"{count / 1024:.0f} KiB"
        if count < 10_000_000
        else f"{count / 2**20:.0f} MiB"
    )


def _count(number: int) -> str:
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


if __name__ == "__main__":
    sys.exit(main())
