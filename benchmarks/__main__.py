"""`python -m benchmarks [case ...]`: measure, keep the results, draw their tables.

python -m benchmarks                 the list of cases
python -m benchmarks step device     measure these, append to results/<case>.jsonl, draw results/<case>.md
python -m benchmarks --table         draw all tables again from the results
"""

import argparse
import ast
import importlib
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from benchmarks import results
from benchmarks.child import ChildError
from benchmarks.options import FASHION, BenchmarkError, Options

RESULTS = Path(__file__).resolve().parent / "results"

CASES: dict[str, str] = {
    "adasplit": "benchmarks.adasplit",
    "codec": "benchmarks.codec",
    "cuts": "benchmarks.cuts",
    "budget": "benchmarks.budget",
    "device": "benchmarks.device",
    "links": "benchmarks.links",
    "papers": "benchmarks.papers",
    "power_cuts": "benchmarks.power_cuts",
    "scaling": "benchmarks.scaling",
    "simulation": "benchmarks.simulation",
    "soak": "benchmarks.soak",
    "step": "benchmarks.step",
    "tuning": "benchmarks.tuning",
}
"""A case is a module: its docstring begins with the question, `run(options)` yields rows, `draw(runs)` gives markdown;
where there is a `plot(runs, folder)`, it leaves drawings beside it.

Named, not imported: one that measures memory and time should not share its process with what another needs.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit code."""
    options = _parser().parse_args(arguments)
    unknown = [name for name in options.cases if name not in CASES]
    if unknown:
        print(f"benchmarks: there is no case {unknown[0]!r}; there are {', '.join(CASES)}", file=sys.stderr)
        return 2
    if not options.cases and not options.table:
        print("\n".join(_list()))
        return 0
    try:
        for name in options.cases or CASES:
            if not options.table:
                _measure(name, options)
            _draw(name, options.results)
    except (BenchmarkError, ChildError, results.ResultsError) as error:
        print(f"benchmarks: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("benchmarks: broken off; what was measured is kept", file=sys.stderr)
        return 130
    return 0


def _list() -> Iterator[str]:
    for name in CASES:
        yield f"{name:<10} {question(name)}"


def question(name: str) -> str:
    """The first line of a case's docstring, read without importing it."""
    file = Path(__file__).with_name(CASES[name].rpartition(".")[2] + ".py")
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").split("\n", 1)[0]


def _measure(name: str, asked: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        measured = _measured(asked.results / f"{name}.jsonl") if asked.missing else frozenset()
        options = Options(
            Path(folder),
            asked.quick,
            asked.only,
            measured,
            results.read(asked.results / f"{name}.jsonl"),
            seeds=asked.seeds,
            kills=asked.kills,
            killed=_killed(asked.results / f"{name}.jsonl"),
            data=asked.data,
            fashion=asked.fashion,
        )
        rows = importlib.import_module(CASES[name]).run(options)
        results.record(asked.results / f"{name}.jsonl", rows, partial=options.partial)


def _measured(path: Path) -> frozenset[tuple[str, str, int, int]]:
    """Rows of the file by task, method, seed and rounds; quick ones do not count."""
    kept = [row for run in results.read(path) if "quick" not in run.partial for row in run.rows]
    return frozenset(
        (row["task"], row["method"], row["seed"], row["rounds"])
        for row in kept
        if row.keys() >= {"task", "method", "seed", "rounds"}
    )


def _killed(path: Path) -> int:
    """Kills that the rows of the file have borne."""
    return sum(row.get("kills", 0) for run in results.read(path) if "quick" not in run.partial for row in run.rows)


def _draw(name: str, folder: Path) -> None:
    runs = results.read(folder / f"{name}.jsonl")
    if not any(run.rows for run in runs):
        print(f"{name}: no results yet", file=sys.stderr)
        return
    case = importlib.import_module(CASES[name])
    text = f"# {name}: {question(name)}\n\n{case.draw(runs)}\n"
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    if hasattr(case, "plot"):
        case.plot(runs, folder)
    print(text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure cutlayer, one question a case.")
    parser.add_argument("cases", nargs="*", metavar="case", help="what to measure; without a name: the list")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of results (benchmarks/results)")
    parser.add_argument("--table", action="store_true", help="measure nothing, draw the tables of the results again")
    parser.add_argument("--quick", action="store_true", help="few repeats, marked as not for quoting")
    parser.add_argument("--only", default="", metavar="TEXT", help="only rows whose name contains TEXT")
    parser.add_argument(
        "--missing", action="store_true", help="papers, budget: only rows that the results do not have yet"
    )
    parser.add_argument("--seeds", type=int, metavar="N", help="papers, budget: so many seeds of each task")
    parser.add_argument("--kills", type=int, default=1000, metavar="N", help="power_cuts: kills in all (1000)")
    parser.add_argument(
        "--data", type=Path, metavar="DIR", help="papers, codec, budget: folder of CIFAR-10, notMNIST, MNIST"
    )
    parser.add_argument(
        "--fashion",
        type=Path,
        default=FASHION,
        metavar="DIR",
        help=f"papers, budget: folder of Fashion-MNIST ({FASHION})",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
