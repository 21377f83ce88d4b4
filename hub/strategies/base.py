"""What a strategy is: one file a paper that says who does what, and what the hub learns from it.

    state = strategy.init(fleet, upper, rounds=20, seed=0)
    for round in range(20):
        for turn in count():
            state, orders = strategy.turn(state, round, turn, present)     what each device is told
            if orders is None: break                                       the round is over
            state, learned = strategy.learn(state, round, step, batches)   for every activation, in a fixed order
            state = strategy.settle(state, round, turn, reports, states)   who came, and the weights they gave
        state = strategy.end_round(state, round)

Transport, deadlines, late devices, counting and logging are the caller's. A strategy must only bear that any device
may be missing from any turn, and that an activation which was asked for may never come.

State is a value that goes in and comes out; everything chance decides is a function of the seed and of counters in it,
so what `save` gives is a whole checkpoint. A method may change the state it was given in place (the hub's weights are
large): after a call only the returned state is valid.

Activations come step by step, and within a step in the order of the fleet: one at a time, or, for a strategy that is
`together`, all of a step at once, of those devices that are still there.
"""

# ruff: noqa: A002  a round is what the papers call it

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    NamedTuple,
    Protocol,
    get_args,
    get_origin,
    get_type_hints,
    runtime_checkable,
)

import numpy.typing as npt
from torch import Tensor, nn

from edge.wire.toml_fields import Range

Kind = Literal["local", "exchange", "forward", "evaluate"]

Lower = Mapping[str, npt.NDArray[Any]]
"""Weights and buffers of a lower segment by name, or of everything a device trains."""


@dataclass(frozen=True)
class Member:
    """A device as a strategy sees it."""

    name: str
    samples: int
    """Training samples."""
    batches: int
    """Batches of one local epoch, the last of which may be short."""


@dataclass(frozen=True)
class Fleet:
    """Every device enrolled for training, present or not, sorted by name."""

    members: tuple[Member, ...]

    def __post_init__(self) -> None:
        names = [member.name for member in self.members]
        if not names or names != sorted(set(names)):
            raise ValueError(f"a fleet needs at least one device, sorted by name and each once; it got {names}")

    def __len__(self) -> int:
        return len(self.members)

    @property
    def steps(self) -> int:
        """Iterations of a round: one local epoch of the device with the most batches; others recycle their data."""
        return max(member.batches for member in self.members)

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names in the order of the fleet."""
        return tuple(member.name for member in self.members)

    def index(self, name: str) -> int:
        """Place of a device in the order of the fleet.

        Raises:
            KeyError: the device is not enrolled for training.
        """
        return self._places[name]

    @cached_property
    def _places(self) -> dict[str, int]:
        return {name: place for place, name in enumerate(self.names)}


@dataclass(frozen=True)
class Order:
    """What one device is told for one turn; devices without an order idle."""

    kind: Kind
    """local: learn alone. exchange: upload, wait for the gradient, learn. forward: upload, learn nothing. evaluate: upload the test samples' smashed data."""
    first_step: int
    """Step of the round to begin with; a step is a batch."""
    steps: int
    send: tuple[int, ...] = ()
    """Which of these steps upload smashed data and labels."""
    settings: Mapping[str, float] = field(default_factory=dict)
    """Hyperparameters for the device's graphs; those not named keep the bundle's defaults."""
    state: Lower | None = None
    """Tensors to load first: weights and buffers by name, whole state vectors as `state.NAME`; None keeps the device's own."""
    give: tuple[str, ...] = ()
    """Which parts of its model the device uploads when the steps are done: head, lower. With them comes what the bundle's `end` graph hands out."""
    beyond: int = 0
    """The most local steps that the device may do of its own once this local order is done, while it has no connection to the hub."""


Orders = Mapping[str, Order]


@dataclass(frozen=True)
class Stand:
    """With which lower segment a device is evaluated; with neither field set, its own."""

    lower: Lower | None = None
    """Weights to load first."""
    donor: str | None = None
    """A device whose weights are fetched and loaded first, and whose mask serves the predictions."""


@dataclass(frozen=True)
class Batch:
    """One activation that came up."""

    smashed: Tensor
    """float32 (batch, *smashed)."""
    labels: Tensor
    """int64 (batch,)."""


@dataclass(frozen=True)
class Learned:
    """What came of one activation."""

    loss: float
    """Mean of the hub's loss over the batch, without regularisation."""
    gradient: Tensor | None = None
    """Of the hub's loss with respect to the smashed data, same shape, to be sent down; None where nothing goes down."""


@dataclass(frozen=True)
class AdamOptions:
    """How both sides learn, where nothing else is to be said of it."""

    lr: Annotated[float, Range(0, 10)] = 1e-3
    """Adam's learning rate on both sides."""

    weight_decay: Annotated[float, Range(0, 1)] = 1e-5
    """Added to the gradient, on both sides."""

    @property
    def settings(self) -> dict[str, float]:
        """As the devices' graphs want them."""
        return {"lr": self.lr, "weight_decay": self.weight_decay}


class Outlook(NamedTuple):
    """What the devices can pay of what a strategy may ask of them."""

    resting: tuple[str, ...] = ()
    """Devices that shall not be asked for activations in the turn to come."""
    payable: float = 1.0
    """Of the activations that a device in the middle of the fleet is expected to send, the share that it can pay in full."""
    control: float = 0.0
    """Of what is left to it, the share that orders and reports will take if they go on as they did."""
    orders: int | None = None
    """How many orders and reports it can pay from here on before they take too much of what is left; None: any number."""


@runtime_checkable
class Forecasting(Protocol):
    """A strategy that knows how many activations it will still ask for, and can do with less."""

    def uploads_left(self, state: Any, device: str) -> float:
        """Expected number, from the present turn on."""

    def foresee(self, state: Any, outlook: Outlook) -> Any:
        """The state, for a turn with this outlook."""

    def orders_to_come(self, state: Any) -> float:
        """Expected number of orders that a device gets in the run, those of quiet rounds (`Quiet`) apart."""


@runtime_checkable
class Quiet(Protocol):
    """A strategy that begins with rounds in which devices learn alone: one order may cover several of them."""

    def quiet_rounds(self, state: Any) -> int:
        """How many rounds at the start have one turn, the same orders in each, and nothing that is sent, given or loaded."""


class Strategy(Protocol):
    """A training method. `STRATEGIES[name](STRATEGIES[name].options(…))` makes one."""

    options: ClassVar[type]
    """Frozen dataclass of the method's hyperparameters: `Annotated[…, Range(…)]`, a docstring under each field, a default for each."""

    def __init__(self, options: Any) -> None:
        """Raises `ValueError` that names the option, its value and its range."""

    together: ClassVar[bool]
    """Whether `learn` gets all activations of a step at once, or each by itself."""

    @property
    def objective(self) -> str:
        """Which objective the devices' bundle must have been built with: a name of `export.objectives`."""

    @property
    def optimizer(self) -> str:
        """Which optimizer the devices' bundle must have been built with: a name of `export.optimizers`."""

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> Any:
        """The state before round 0. The initial weights of `upper` are copied; the module itself is used as a template."""

    def turn(self, state: Any, round: int, turn: int, present: Collection[str]) -> tuple[Any, Orders | None]:
        """What the devices in `present` are told in this turn, counted from 0 in every round; None: the round is over."""

    def learn(
        self, state: Any, round: int, step: int, batches: Mapping[str, Batch]
    ) -> tuple[Any, Mapping[str, Learned]]:
        """Learn from one activation, or from all of a step, by device; the answer has the same devices."""

    def settle(
        self,
        state: Any,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> Any:
        """The turn is over; `reports` and `states` are those of the devices that came in time."""

    def end_round(self, state: Any, round: int) -> Any:
        """The round is over."""

    def stand(self, state: Any, device: str, present: Collection[str]) -> Stand:
        """With which lower segment a device is evaluated; devices that do not belong to the fleet have none of their own."""

    def predict(self, state: Any, device: str, smashed: Tensor) -> Tensor:
        """Logits (batch, classes) of a device's smashed data, in evaluation mode; the device need not belong to the fleet."""

    def samples(self, state: Any) -> int:
        """Samples that went forward and backward through the upper segment so far, repeated ones included."""

    def save(self, state: Any) -> dict[str, Any]:
        """The state between two rounds, as tensors and plain values that `torch.load(weights_only=True)` reads."""

    def load(self, fleet: Fleet, upper: nn.Module, saved: Mapping[str, Any]) -> Any:
        """The state that was saved. `fleet` and `upper` must be those of `init`.

        Raises:
            ValueError: it was saved for another fleet or another upper segment.
        """


def check(options: Any) -> None:
    """Check options against the ranges and choices in their annotations and against their own `problems()`.

    Raises:
        ValueError: naming each option that is wrong, its value and what would be right, one a line.
    """
    hints = get_type_hints(type(options), include_extras=True)
    problems = [
        f"{option.name} = {value!r}: must be {wanted}"
        for option in fields(options)
        if (wanted := _wanted(hints[option.name], value := getattr(options, option.name))) is not None
    ]
    if not problems and hasattr(options, "problems"):
        problems += options.problems()
    if problems:
        raise ValueError("\n".join(problems))


def _wanted(hint: Any, value: object) -> str | None:
    """What an option must be, or None where it is."""
    if get_origin(hint) is Literal and value not in get_args(hint):
        return "one of " + ", ".join(map(str, get_args(hint)))
    if get_origin(hint) is Annotated and value is not None:
        for mark in hint.__metadata__:
            if isinstance(mark, Range) and not mark.minimum <= value <= mark.maximum:  # type: ignore[operator]
                return f"from {mark.minimum:g} to {mark.maximum:g}"
    return None
