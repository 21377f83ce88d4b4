"""The command `cuts` with `--data`: measures every cut, prints tables, writes files, and picks one."""

import argparse
import json
import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path  # noqa: TC003  as all of the project import it

import torch

from edge.wire.profile import Profile
from export.bundle import BuildSpec
from export.cuts import plot, table
from export.cuts.board import on_board, profile_of, read_profile
from export.cuts.candidates import Candidate, Wish, candidates
from export.cuts.choice import Choice, Limits, Option, choose, front
from export.cuts.link import Link, parse_budget, parse_link
from export.cuts.measured import Pace
from export.cuts.rounds import cost_of
from export.cuts.strategies import Plan, round_of
from export.errors import ExportError


def run(arguments: argparse.Namespace) -> int:
    """Do what the options say; returns the exit code: 1 where no cut is within the limits."""
    link = parse_link(arguments.link) if arguments.link else None
    budget = parse_budget(arguments.budget) if arguments.budget else None
    board = read_profile(arguments.board) if arguments.board else None
    plan = Plan(arguments.batches, arguments.rounds, arguments.devices)
    wish = wish_of(arguments, plan)
    torch.set_num_threads(arguments.threads)
    found = list(candidates(wish, lambda text: print(f"cuts: {text}", file=sys.stderr, flush=True)))
    _refuse_all(found)
    here = profile_of(wish, found)
    profile = board or here
    options = options_of(wish, profile, found, link)
    best = front(list(options.values()))
    limits = Limits(link, budget, profile.memory_bytes, arguments.max_leak, arguments.rounds)
    wanted = link is not None or budget is not None or board is not None or arguments.max_leak is not None
    choice = choose(list(options.values()), limits) if wanted else None
    print(shown(wish, profile, found, options, best, plan, arguments.strategy))
    if choice is not None:
        print("\n" + textwrap.fill(choice.why, table.WIDTH))
    _write(arguments, wish, profile, here, found, options, best, choice)
    return 0 if choice is None or choice.option else 1


def wish_of(arguments: argparse.Namespace, plan: Plan) -> Wish:
    """What the options ask to measure."""
    spec = BuildSpec(
        model=arguments.model,
        arguments=dict(arguments.with_ or ()),
        input_shape=arguments.input,
        dtype=arguments.dtype,
        optimizer="adam",
    )
    return Wish(
        spec=spec,
        round=round_of(arguments.strategy, plan),
        data=arguments.data,
        codecs=tuple(arguments.codec or ("float32",)),
        only=tuple(arguments.only.split(",")) if arguments.only else (),
        batch=arguments.batch,
        threads=arguments.threads,
        pace=Pace(),
        leak_seconds=arguments.leak_seconds,
    )


def options_of(wish: Wish, profile: Profile, found: Sequence[Candidate], link: Link | None) -> dict[str, Option]:
    """Those that can be exported, with their costs on a board."""
    boards = on_board(profile, wish, found)
    return {
        each.name: Option(
            each,
            boards[each.name],
            cost_of(wish.round, boards[each.name].steps, each.sizes[wish.codecs[0]], each.weights_bytes, link),
            wish.batch,
        )
        for each in found
        if each.name in boards
    }


def shown(
    wish: Wish,
    profile: Profile,
    found: Sequence[Candidate],
    options: dict[str, Option],
    best: set[str],
    plan: Plan,
    strategy: str,
) -> str:
    """All tables, with what they are about."""
    codec = wish.codecs[0]
    step = " + ".join(wish.round.runs)
    peaks = (
        "the process's, measured here"
        if any(o.board.source == "predicted" for o in options.values())
        else "the process's"
    )
    told = (
        f"Below each cut: elements of the smashed data and multiply-adds of a sample; milliseconds of one {step} step of "
        f"{wish.batch} samples with {wish.threads} thread{'s' * (wish.threads > 1)} on {profile.name} (~ predicted from its "
        f"operators), peak memory ({peaks}). * is on the Pareto front of computing, bytes and leak."
    )
    of_round = (
        f"A device's round with {strategy}, {plan.batches} batches, mean over {plan.rounds} rounds and {plan.devices} devices: "
        f"{wish.round.uploads:.3g} uploads and {wish.round.gradients:.3g} gradients in {codec}, bytes with headers. dcor: distance "
        f"correlation of sample and smashed data; NMSE: error of a decoder trained {wish.leak_seconds:g} s against the mean sample's "
        "(1: it sees nothing, 0: all)."
    )
    parts = [
        textwrap.fill(told, table.WIDTH),
        table.cut_table(found, options, best),
        textwrap.fill(of_round, table.WIDTH),
        table.round_table(options, best, codec),
    ]
    if len(wish.codecs) > 1:
        parts += ["Leak by codec:", table.leak_table(found)]
    reasons = [textwrap.fill(f"no cut at {each.name}: {each.why}", table.WIDTH) for each in found if each.why]
    return "\n\n".join([*parts, *(["\n".join(reasons)] if reasons else [])])


def _refuse_all(found: Sequence[Candidate]) -> None:
    """Raise where no cut can be exported: that is a mistake of the model or of the options."""
    if not found:
        raise ExportError("the model has no layer behind which it could be cut")
    if not any(each.measured for each in found):
        raise ExportError(f"no cut of this model can be exported; {found[0].name}: {found[0].why}")


def _write(
    arguments: argparse.Namespace,
    wish: Wish,
    profile: Profile,
    here: Profile,
    found: Sequence[Candidate],
    options: dict[str, Option],
    best: set[str],
    choice: Choice | None,
) -> None:
    facts = {
        "model": wish.spec.model,
        "strategy": arguments.strategy,
        "codecs": wish.codecs,
        "batch": wish.batch,
        "threads": wish.threads,
        "link": arguments.link,
        "budget": arguments.budget,
        "board": dict(profile.board),
    }
    texts: dict[Path | None, str] = {
        arguments.json: json.dumps(table.as_json(found, options, best, choice, facts), indent=1) + "\n",
        arguments.plot: plot.svg(
            list(options.values()), best, f"{wish.spec.model}, {arguments.strategy}, {wish.codecs[0]}"
        ),
        arguments.profile: here.serialize(),
    }
    for path, text in texts.items():
        if path is not None:
            path.write_text(text, encoding="utf-8")
