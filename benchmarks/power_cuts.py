"""Does a run that is killed hundreds of times end with exactly the weights of one that nobody disturbed?

Small runs of real processes (three devices with digits, a hub, a broker), `order = "fixed"`. SIGKILL comes at moments that
chance picks: mostly to a device, now and then to the hub or the broker, sometimes to all at once; a killed broker loses all it had; a while
later each is started again. At the end everything the hub has learned (weights, masks, moments, averages, losses and
accuracies of all rounds) and every state tensor of each device are compared, bit by bit, with those of the same run
without a kill; the columns `hub`, `devices` and `rounds` say how many were the same. `--kills N` says how many kills the results are to have in all; runs that are there already count.

SIGKILL is not a power cut: what the operating system has taken is written all the same. What a cut adds is tested
as far as it can be here: every commit is flushed (`synchronous = FULL`, fsync and rename), and no frame leaves before it.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from itertools import count

from benchmarks import markdown
from benchmarks.campaign import Campaign, CampaignError, Outcome, Plan, bundles
from benchmarks.options import BenchmarkError, Options
from benchmarks.results import Row, Run
from hub.broker import find_mosquitto

KILLS_A_RUN = 50
MOST_FAILURES = 5
"""Runs that may fail before the case gives up."""

PLANS = {
    "sequential SL": Plan("split_learning", broker="mosquitto"),
    "AdaSplit": Plan("adasplit", {"kappa": 0.3, "replay": 2, "eta": 0.5, "select_every": 2}),
    "AdaSplit, gradient down": Plan("adasplit", {"kappa": 0.0, "server_gradient": True}),
    "SplitFed v1": Plan("splitfed"),
    "LocFedMix-SL": Plan("locfedmix", broker="mosquitto"),
    "SCAFFOLD": Plan("scaffold", rounds=80),
    "FedAvg": Plan("fedavg", rounds=80, broker="mosquitto"),
}


def run(options: Options) -> Iterator[Row]:
    """Runs of all plans in turns, until there have been so many kills.

    Raises:
        BenchmarkError: too many runs failed.
    """
    wanted = 2 * KILLS_A_RUN if options.quick else options.kills
    done, failures = options.killed, 0
    undisturbed: dict[str, Outcome] = {}
    for number in count(done // KILLS_A_RUN):
        if done >= wanted:
            return
        name = list(PLANS)[number % len(PLANS)]
        plan = _here(PLANS[name])
        built = bundles(plan.strategy, plan.options, options.folder)
        options.say(f"power_cuts: {name}, {done} of {wanted} kills")
        try:
            if name not in undisturbed:
                undisturbed[name] = Campaign(plan, options.folder / f"undisturbed-{number}", built).run()
            cut = replace(plan, kills=KILLS_A_RUN, seed=number)
            outcome = Campaign(cut, options.folder / f"cut-{number}", built).run()
        except CampaignError as error:
            options.say(str(error))
            failures += 1
            yield {"plan": name, "seed": number, "failed": str(error)[-2000:], "kills": 0}
            if failures >= MOST_FAILURES:
                raise BenchmarkError(f"{failures} runs did not end: the last one: {error}") from error
            continue
        done += len(outcome.kills)
        yield _row(name, cut, outcome, undisturbed[name])


def _here(plan: Plan) -> Plan:
    return plan if plan.broker != "mosquitto" or find_mosquitto() else replace(plan, broker="embedded")


def _row(name: str, plan: Plan, cut: Outcome, undisturbed: Outcome) -> Row:
    phases = Counter((kill.process.split("-")[0], kill.phase) for kill in cut.kills)
    return {
        "plan": name,
        "options": dict(plan.options),
        "broker": plan.broker,
        "rounds": plan.rounds,
        "devices": plan.devices,
        "seed": plan.seed,
        "kills": len(cut.kills),
        "phases": [[*phase, number] for phase, number in sorted(phases.items())],
        "same_hub": cut.learned == undisturbed.learned,
        "same_devices": sum(cut.devices[name] == undisturbed.devices[name] for name in cut.devices),
        "same_rounds": cut.rounds == undisturbed.rounds,
        "restarts": cut.restarts,
        "seconds": cut.seconds,
        "undisturbed_seconds": undisturbed.seconds,
        "outcome": {key: value for key, value in asdict(cut).items() if key in ("learned", "devices")},
    }


def draw(measured: Sequence[Run]) -> str:
    """Runs and kills by method; kills by process and phase; what failed."""
    rows = [row for one in measured for row in one.rows]
    ended = [row for row in rows if "failed" not in row]
    parts = [markdown.paragraph(part) for part in (__doc__ or "").split("\n\n")[1:]]
    lines = [_line(name, [row for row in ended if row["plan"] == name]) for name in PLANS]
    lines.append(_line("all", ended))
    heads = ["method", "broker", "runs", "kills", "hub", "devices", "rounds", "s/kill"]
    parts.append(markdown.table(heads, [line for line in lines if line]))
    phases: Counter[tuple[str, str]] = Counter()
    for row in ended:
        for process, phase, number in row["phases"]:
            phases[process, phase] += number
    parts.append("## Where they were when they were killed")
    parts.append(
        markdown.table(["process, phase", "kills"], [[f"{a}: {b}", str(n)] for (a, b), n in sorted(phases.items())])
    )
    failed = [row for row in rows if "failed" in row]
    parts.append(f"Runs that did not end: {len(failed)}.")
    parts += [f"* {row['plan']}, seed {row['seed']}: `{row['failed'].splitlines()[-1]}`" for row in failed]
    return "\n\n".join([*parts, *(markdown.birth(one) for one in measured if one.rows)])


def _line(name: str, rows: Sequence[Row]) -> list[str]:
    if not rows:
        return []
    devices, brokers = sum(row["devices"] for row in rows), {row["broker"] for row in rows}
    kills = sum(row["kills"] for row in rows)
    return [
        name,
        brokers.pop() if len(brokers) == 1 else "both",
        str(len(rows)),
        str(kills),
        f"{sum(row['same_hub'] for row in rows)}/{len(rows)}",
        f"{sum(row['same_devices'] for row in rows)}/{devices}",
        f"{sum(row['same_rounds'] for row in rows)}/{len(rows)}",
        f"{sum(row['seconds'] - row['undisturbed_seconds'] for row in rows) / max(kills, 1):.2f}",
    ]
