"""A run from its configuration to its last round: broker, link, fleet, rounds, metrics, checkpoints.

`serve` is the whole of it, for `cutlayer-hub serve` and for the demo alike; a run that was interrupted goes on from
the checkpoint of its last round.
"""

import logging
import secrets
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from edge.link import Link
from edge.mqtt_link import MqttLink, read_password
from edge.wire import topics
from edge.wire.budget import EFFORT, WAYS
from edge.wire.frames import Limits
from export.bundle import HubBundle, example_input, load_hub_bundle
from export.cost import cost_below
from export.cut import WHOLE, load_factory, split, uncut
from hub.broker import start_broker
from hub.config import HubConfig
from hub.devices import Devices
from hub.journal import Journal, NoJournal, Recorded, done_in
from hub.known import KnownSamples
from hub.orchestrator import Learned, Orchestrator
from hub.profile.survey import Patience, Question, Survey, keep_profile
from hub.progress import Progress
from hub.run_records import device_record, run_record
from hub.store import Checkpoint, Store, patiently
from hub.strategies import STRATEGIES
from hub.strategies.base import Fleet, Strategy
from hub.terms import Shapes, Terms

log = logging.getLogger("cutlayer.hub")

ROUNDS_PER_ORDER = 8
"""Of rounds in which nobody sends, where bytes are limited."""
CONNECTED_SECONDS = 0.1
"""Between two looks whether the broker is there."""

Connect = Callable[[str, tuple[str, bytes] | None, Sequence[str]], Link]
"""Makes the hub's link, not open yet, of a client id, the last will (topic, payload) if there is one, and what is subscribed to."""


class RunError(RuntimeError):
    """A run that cannot begin or go on as asked; the message says why and what would help."""


@dataclass
class Tally:
    """What the run has come to so far."""

    accuracy_last: float | None = None
    accuracy_max: float | None = None
    seconds: float = 0.0

    def evaluated(self, accuracy: float) -> None:
        """Note the fleet's mean accuracy of a round."""
        self.accuracy_last = accuracy
        self.accuracy_max = max(accuracy, self.accuracy_max or 0.0)


@dataclass
class Run:
    """A run in progress."""

    strategy: Strategy
    orchestrator: Orchestrator
    devices: Devices
    store: Store
    fleet: Fleet
    facts: list[dict[str, Any]]
    state: Any
    upper_flops: int
    """Multiply-adds of a step of the upper segment, per sample."""
    journal: Journal | NoJournal
    known: KnownSamples
    rounds_done: int = 0
    tally: Tally = field(default_factory=Tally)


@contextmanager
def broker(config: HubConfig) -> Iterator[str]:
    """The URL of the broker of a run; one of our own lives as long as the context."""
    if config.broker.url not in ("embedded", "mosquitto"):
        yield config.broker.url
        return
    folder = config.run.folder / "broker"
    with start_broker(config.broker.url, folder, port=config.broker.port or None) as started:
        yield started.url


def serve(
    config: HubConfig,
    url: str,
    progress: Progress,
    *,
    resume: bool = False,
    started: Callable[[], None] = lambda: None,
    watch: Callable[[], None] = lambda: None,
    run_facts: Mapping[str, Any] | None = None,
    connect: Connect | None = None,
    durable: bool = True,
    patient: bool = False,
    now: Callable[[], float] = time.monotonic,
) -> None:
    """Carry a run out to its last round and leave its metrics in the run's folder.

    Args:
        config: everything the run is told.
        url: of the broker.
        progress: where to show what happens.
        resume: go on from the folder's checkpoint; without, the folder must not hold a run.
        started: called once the hub listens, so that devices may be started.
        watch: called while devices are awaited; may raise when it knows that they will not come.
        run_facts: more facts for the first record of the metrics.
        connect: another link than MQTT to `url`.
        durable: whether a hub that is killed goes on where it was; else there is a checkpoint at the end only.
        patient: wait for the least number of devices without an end.
        now: seconds that the deadlines of turns go by; those of the metrics are the wall clock's.

    Raises:
        RunError, FleetError, StoreError, LinkError, ExportError: in a sentence for the user.
    """
    torch.set_num_threads(config.run.threads)
    bundle = load_hub_bundle(config.bundle.path)
    checkpoint, store = _fresh_or_resumed(config.run.folder, resume=resume)
    strategy = _strategy(config)
    _suits(strategy, config.run.strategy, bundle)
    with ExitStack() as down:
        journal = Journal(store.root / "journal.db") if durable else NoJournal()
        down.callback(journal.close)
        known = _known(config, store.root / "known.db" if durable else None)
        down.callback(known.close)
        known.restore(checkpoint.known if checkpoint else {})
        covered = checkpoint.journal if checkpoint else journal.last
        ledgers = done_in(journal.entries(covered), checkpoint.ledgers) if checkpoint else None
        devices, link = devices_of(
            config,
            connect or mqtt(config, url),
            bundle,
            store,
            ledgers=ledgers,
            journal=journal,
            fixed=config.run.order == "fixed",
        )
        down.callback(link.close)
        _connect(link, patient=resume)
        started()
        orchestrator = Orchestrator(
            devices,
            strategy,
            replace(_terms(config, store.run), patient=patient),
            Shapes(bundle.bundle, bundle.smashed.shape, bundle.classes, bundle.given, bundle.start),
            store.next_order,
            kept=journal,
            recorded=Recorded(journal.entries(covered)),
            known=known,
            now=now,
            say=progress.device,
        )
        progress.stage(f"waiting for {config.fleet.devices} devices")
        upper = _upper(bundle)
        flops = cost_below(upper, torch.zeros(1, *bundle.smashed.shape)).training
        make = partial(Run, strategy, orchestrator, devices, store, upper_flops=flops, journal=journal, known=known)
        if checkpoint is None:
            orchestrator.gather(watch)
            run = _begun(make, config, strategy, orchestrator, upper)
            profiled = _profiled(config, devices, store, progress, now) if config.run.profile else {}
            patiently(lambda: store.record(run_record(config, bundle, run.facts, {**(run_facts or {}), **profiled})))
            _save(run)
        else:
            run = _taken_up(make, checkpoint, strategy, orchestrator, upper)
            if run.rounds_done < config.run.rounds and not orchestrator.in_turn:
                orchestrator.gather(watch)  # in a turn they are told what they missed as they come
        _rounds(run, config, progress, now)
        missing = len(run.facts) if resume else 0
        orchestrator.farewell(f"the run of {config.run.rounds} rounds is over", missing)


def _begun(
    make: Callable[..., Run], config: HubConfig, strategy: Strategy, orchestrator: Orchestrator, upper: nn.Module
) -> Run:
    """A new run, with the devices that are there."""
    facts = orchestrator.facts()
    fleet = orchestrator.fleet(facts)
    state = strategy.init(fleet, upper, rounds=config.run.rounds, seed=config.run.seed)
    orchestrator.check_budgets(state, fleet)
    return make(fleet=fleet, facts=facts, state=state)


def _taken_up(
    make: Callable[..., Run], checkpoint: Checkpoint, strategy: Strategy, orchestrator: Orchestrator, upper: nn.Module
) -> Run:
    """The run of a checkpoint, with the devices it was begun with."""
    orchestrator.weights.load(checkpoint.weights)
    fleet = orchestrator.fleet(checkpoint.fleet)
    state = strategy.load(fleet, upper, checkpoint.strategy)
    run = make(fleet=fleet, facts=checkpoint.fleet, state=state)
    run.rounds_done, run.tally = checkpoint.rounds_done, Tally(**checkpoint.tally)
    return run


def _profiled(
    config: HubConfig, devices: Devices, store: Store, progress: Progress, now: Callable[[], float]
) -> dict[str, Any]:
    """Have the devices that are there profiled; what the run's record says of it."""
    progress.stage("profiling the devices' boards")
    names = devices.online()
    survey = Survey(
        devices,
        Question(),
        secrets.randbits(32),
        Patience(come=0.0, answer=config.run.profile_seconds),
        expected=len(names),
        names=names,
        keep=lambda name, text: keep_profile(store.root / "profiles", name, text),
        others=devices.done,  # of an earlier run
        now=now,
        say=progress.device,
        at_once=config.run.profile_at_once,
    )
    survey.run()
    for name, reason in survey.missing.items():
        progress.note(f"no profile of {name}: {reason}")
    return {"profiles": {name: f"in profiles/{name}.json" for name in survey.found} | survey.missing}


def _fresh_or_resumed(folder: Path, *, resume: bool) -> tuple[Checkpoint | None, Store]:
    """The run of a folder, and where it stands; None: it has not begun, also where a hub was killed while it waited for devices."""
    if not resume and Store.used(folder):
        raise RunError(f"{folder} already holds a run: resume it with --resume or name another folder")
    if resume and not Store.known(folder):
        raise RunError(f"{folder} holds no checkpoint to resume from")
    store = Store.open(folder)
    checkpoint = store.load()
    if checkpoint is None:
        if store.begun:
            raise RunError(f"{folder} holds no checkpoint to resume from, though its metrics tell of rounds")
        store.begin()
    return checkpoint, store


def _rounds(run: Run, config: HubConfig, progress: Progress, now: Callable[[], float]) -> None:
    progress.stage("training")
    for number in range(run.rounds_done, config.run.rounds):
        began, began_by_now = time.monotonic(), now()
        run.state, learned = run.orchestrator.train(run.state, run.fleet, number)
        learned.seconds = now() - began_by_now
        accuracies = {}
        if _evaluates(config, number, learned):
            accuracies = run.orchestrator.evaluate(run.state, run.fleet, number)
        seconds = time.monotonic() - began
        run.rounds_done = number + 1
        last = number + 1 == config.run.rounds
        _keep(run, number, learned, accuracies, seconds, progress, last=last)


def _evaluates(config: HubConfig, number: int, learned: Learned) -> bool:
    every, last = config.run.evaluate_every, number + 1 == config.run.rounds
    # Before anything has come up the hub's predictions are chance, and asking for them would only cost bytes.
    return last or (_came(learned) and every > 0 and (number + 1) % every == 0)


def _came(learned: Learned) -> bool:
    return learned.samples > 0 or learned.states > 0


def _keep(
    run: Run,
    number: int,
    learned: Learned,
    accuracies: Mapping[str, float],
    seconds: float,
    progress: Progress,
    *,
    last: bool,
) -> None:
    trained = {name: value for name, value in accuracies.items() if name in run.fleet.names}
    accuracy = sum(trained.values()) / len(trained) if trained else None
    if accuracy is not None:
        run.tally.evaluated(accuracy)
    run.tally.seconds += seconds
    record = {
        "record": "round",
        "round": number + 1,
        "phase": "global" if _came(learned) else "local",
        "seconds": seconds,
        "training_seconds": learned.seconds,
        "loss": sum(learned.losses) / len(learned.losses) if learned.losses else None,
        "accuracy": accuracy,
        "accuracies": dict(accuracies),
        "selected": learned.selected,
        "late": sorted(learned.late),
        "present": len(run.devices.online()),
        "hub_flops": run.strategy.samples(run.state) * run.upper_flops,
        **({"served": learned.served} if learned.served else {}),
    }
    records = [record]
    records += [device_record(number + 1, d) for _, d in sorted(run.devices.known.items()) if d.totals]
    records += [
        {"record": "refusal", "round": number + 1, "device": name or None, **refused}
        for name, refused in run.devices.refusals().items()
    ]
    for one in records:
        patiently(partial(run.store.record, one))
    if run.journal.durable or last:
        _save(run)
    totals = [device.totals for device in run.devices.known.values() if device.totals]
    sent = [total["sent"] - total["evaluation_sent"] for total in totals]
    progress.round({**record, "sent_bytes": sum(sent) / max(1, len(sent))})


def _save(run: Run) -> None:
    """The checkpoint between two rounds; what the journal has until here is in it."""
    covered = run.journal.last
    checkpoint = {
        "rounds_done": run.rounds_done,
        "strategy": run.strategy.save(run.state),
        "fleet": run.facts,
        "ledgers": run.devices.ledgers(),
        "tally": asdict(run.tally),
        "journal": covered,
        "weights": run.orchestrator.weights.save(),
        "known": _kept(run.known),
    }
    patiently(lambda: run.store.save(checkpoint))
    patiently(lambda: run.journal.forget(covered))
    patiently(run.known.settle)


def _known(config: HubConfig, path: Path | None) -> KnownSamples:
    limit = int(config.known.megabytes * 1e6) if config.known.skip_below else 0
    return KnownSamples(path, limit, config.known.refresh_rounds)


def _kept(known: KnownSamples) -> dict[str, Any]:
    saved: dict[str, Any] = {}
    patiently(lambda: saved.update(known.save()))
    return saved


def _strategy(config: HubConfig) -> Strategy:
    alone = getattr(config.strategy, "offline_steps", 0)
    if config.run.order == "fixed" and alone:
        raise RunError(
            f'[strategy] offline_steps = {alone}: with [run] order = "fixed" what a device learns must not hang on its link: '
            "set it to 0"
        )
    measured = [f'{name} = "{text}"' for name in EFFORT.values() if (text := getattr(config.budget, name)) is not None]
    if config.run.order == "fixed" and measured:
        raise RunError(
            f'[budget] {measured[0]}: with [run] order = "fixed" a run must not hang on what is never measured the same twice: '
            "leave it out"
        )
    try:
        return STRATEGIES[config.run.strategy](config.strategy)
    except ValueError as error:
        raise RunError(f"[strategy] of {config.run.strategy}: {error}") from error


def _suits(strategy: Strategy, name: str, bundle: HubBundle) -> None:
    """Refuse a bundle that was built for other methods."""
    wanted, found = (strategy.objective, strategy.optimizer), (bundle.objective, bundle.optimizer)
    if wanted != found:
        raise RunError(
            f"the strategy {name} needs a bundle with the objective {wanted[0]!r} and the optimizer {wanted[1]!r}, and this "
            f"one has {found[0]!r} and {found[1]!r}: cutlayer-export build --objective {wanted[0]} --optimizer {wanted[1]}"
        )


def _upper(bundle: HubBundle) -> nn.Module:
    """The upper segment with the weights it was built with; an empty one where the devices train the whole model."""
    model = load_factory(bundle.model, **bundle.arguments)
    x = example_input(model, bundle.input.shape, bundle.input.dtype)
    upper = (uncut(model, x) if bundle.cut == WHOLE else split(model, bundle.cut, x)).upper
    upper.load_state_dict({name: torch.tensor(array) for name, array in bundle.upper.items()})
    return upper


def _terms(config: HubConfig, run_id: int) -> Terms:
    run, fleet = config.run, config.fleet
    limited = any(name.startswith(way) for name in config.budget.amounts() for way in WAYS)
    return Terms(
        rounds=run.rounds,
        batch=run.batch,
        seed=run.seed,
        run=run_id,
        devices=fleet.devices,
        order=run.order,
        minimum_devices=fleet.minimum_devices,
        gather_seconds=fleet.gather_seconds,
        turn_seconds=run.turn_seconds,
        grace_seconds=run.grace_seconds,
        evaluate_every=run.evaluate_every,
        codec=run.codec,
        evaluation_codec=run.evaluation_codec,
        rounds_per_order=run.rounds_per_order or (ROUNDS_PER_ORDER if limited else 1),
        weights_codec=run.weights_codec,
        budget=config.budget.amounts(),
        skip_below=config.known.skip_below,
        refresh_rounds=config.known.refresh_rounds,
    )


def devices_of(
    config: HubConfig,
    connect: Connect,
    bundle: HubBundle,
    store: Store,
    *,
    ledgers: Mapping[str, Any] | None = None,
    journal: Journal | NoJournal | None = None,
    fixed: bool,
    reads: Callable[[bytes], bool] = lambda _data: True,
) -> tuple[Devices, Link]:
    """The hub's correspondence with its devices, and its link, which is not open yet.

    Args:
        config: of the hub.
        connect: makes the link.
        bundle: that the devices must have.
        store: whose count of starts they go by.
        ledgers: what has been received from whom.
        journal: knows the tables of their streams, and keeps new ones.
        fixed: whether devices are refused whose budgets are measured.
        reads: which messages are for this hub.
    """
    journal = journal or NoJournal()
    fleet, instance = config.fleet.name, secrets.randbits(32)
    offline = topics.pack_status(online=False, instance=instance)
    link = connect(
        f"hub-{fleet}-{instance:08x}", (topics.hub_status(fleet), offline), topics.subscriptions_of_hub(fleet)
    )
    devices = Devices(
        link,
        fleet,
        bundle.bundle,
        generation=store.generation,
        instance=instance,
        ledgers=ledgers,
        limits=Limits(chunk_bytes=config.broker.chunk_bytes),
        budget=config.budget.amounts(),
        tables=journal.tables(),
        keep_table=journal.keep_table,
        fixed=fixed,
        reads=reads,
    )
    return devices, link


def _connect(link: Link, *, patient: bool) -> None:
    """Open the hub's link. One that comes back after a power cut may be there long before its broker: it waits for it."""
    if not patient:
        link.open()
        return
    link.start()
    while not link.connected:
        time.sleep(CONNECTED_SECONDS)


def mqtt(config: HubConfig, url: str) -> Connect:
    """Links to the broker of a run, as its configuration has it."""
    broker = config.broker
    return lambda client_id, will, subscriptions: MqttLink(
        url,
        client_id=client_id,
        will=will,
        subscriptions=subscriptions,
        username=broker.username,
        password=read_password(broker.password_file),
        ca=broker.ca,
        certificate=broker.certificate,
        key=broker.key,
    )
