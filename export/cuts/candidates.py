"""Every cut of a model, one after the other: made, measured, trained a little, coded. One that cannot be is a row that says why."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from export.bundle import BuildSpec, Prepared, example_input, prepare
from export.cost import Cost, cost_below, training_cost
from export.cut import legal_cuts, load_factory, trace_layers
from export.cuts import coded, measured
from export.cuts.calibration import Calibration, read
from export.cuts.leak import Leak, leak
from export.cuts.measured import Measured, Pace
from export.cuts.smashed import train
from export.cuts.strategies import Round
from export.errors import ExportError
from export.graphs import make_graph


@dataclass(frozen=True)
class Wish:
    """What to measure.

    Attributes:
        spec: The model; its cut is of no meaning.
        round: What a round of the strategy has.
        data: Where the calibration data are, as `calibration.read` takes it.
        codecs: Codecs; the first is the one that the round is predicted with, the leak is measured behind each.
        only: Cuts to look at; all where it is empty.
        batch: Samples of a step.
        threads: Of onnxruntime.
        pace: How long to time.
        train_steps: Steps of training before anything is coded.
        leak_seconds: That a decoder may train; 0: none.
    """

    spec: BuildSpec
    round: Round
    data: str
    codecs: tuple[str, ...] = ("float32",)
    only: tuple[str, ...] = ()
    batch: int = 32
    threads: int = 1
    pace: Pace = field(default_factory=Pace)
    train_steps: int = 60
    leak_seconds: float = 10.0


@dataclass(frozen=True)
class Candidate:
    """One cut, and what was measured of it; only `name` and `why` where it cannot be exported."""

    name: str
    why: str = ""
    """Why it is none."""
    cost: Cost | None = None
    training: float | None = None
    """Multiply-adds a sample of a training step with its head; None where the strategy has none."""
    measured: Measured | None = None
    sizes: Mapping[str, coded.Sizes] = field(default_factory=dict)
    """By codec."""
    weights_bytes: float = 0.0
    """Of a message with the parts of the model that travel."""
    leaks: tuple[Leak, ...] = ()


def candidates(wish: Wish, say: Callable[[str], None]) -> Iterator[Candidate]:
    """Yield every cut from the input upwards; `say` hears which one is at work.

    Raises:
        ExportError: the model cannot be made or traced, the data do not fit it, or a cut that was asked for does not exist.
    """
    for codec in wish.codecs:
        coded.check_codec(codec)
    names = names_of(wish)
    data: Calibration | None = None
    for place, name in enumerate(names, 1):
        say(f"{name} ({place} of {len(names)})")
        try:
            prepared = prepare(replace(wish.spec, cut=name, objective=wish.round.objective))
        except ExportError as error:
            yield Candidate(name, str(error))
            continue
        if data is None:  # a wrong file is the user's mistake and no property of a cut
            x = prepared.steps.x
            data = read(wish.data, tuple(x.shape[1:]), str(x.dtype).removeprefix("torch."), prepared.classes)
        yield _candidate(wish, prepared, data)


def names_of(wish: Wish) -> Sequence[str]:
    """The cuts to look at, in the order of the model."""
    model = load_factory(wish.spec.model, **wish.spec.arguments)
    names = legal_cuts(trace_layers(model))
    example_input(model, wish.spec.input_shape, wish.spec.dtype)
    unknown = [name for name in wish.only if name not in names]
    if unknown:
        raise ExportError(f"there is no layer '{unknown[0]}' to cut at; possible cuts: {', '.join(names)}")
    return [name for name in names if not wish.only or name in wish.only]


def _candidate(wish: Wish, prepared: Prepared, data: Calibration) -> Candidate:
    name, steps = prepared.halves.cut, prepared.steps
    cost = cost_below(prepared.halves.lower, steps.x)
    try:
        graphs = {kind: make_graph(steps, kind) for kind in wish.round.runs}
        found = measured.measure(steps, graphs, *data.batch(0, wish.batch), threads=wish.threads, pace=wish.pace)
        trained = train(prepared, data, batch=wish.batch, steps=wish.train_steps, frozen=not wish.round.trains)
    except ExportError as error:
        return Candidate(name, str(error), cost)
    vocabulary = vocabulary_of(prepared, data)
    return Candidate(
        name,
        "",
        cost,
        training_cost(steps) if wish.round.trains else None,
        found,
        {codec: coded.sizes(trained.sent, codec) for codec in wish.codecs},
        coded.weights(steps.slices, wish.round.parts),
        tuple(
            leak(trained.lower, data, codec, seconds=wish.leak_seconds, vocabulary=vocabulary) for codec in wish.codecs
        ),
    )


def vocabulary_of(prepared: Prepared, data: Calibration) -> int | None:
    """How many tokens there are; None where samples are no tokens."""
    if data.x.dtype.kind not in "iu":
        return None
    return int(getattr(prepared.model, "input_limit", 0)) or int(data.x.max()) + 1
