"""What strategies do alike unless they say otherwise: those whose hub has an upper segment, and those that do not cut the model."""

# ruff: noqa: A002, ARG002  arguments are the contract's

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, NoReturn

from torch import Tensor, nn

from edge.wire.toml_fields import Range
from hub.segment import Tuning, UpperSegment
from hub.strategies.averaging import mean, shares
from hub.strategies.base import Batch, Fleet, Learned, Lower, Order, Orders, Stand, check
from hub.strategies.checkpoint import pack, unpack


class _Side:
    """The part that is the same for both."""

    together: ClassVar[bool] = False

    def __init__(self, options: Any) -> None:
        check(options)
        self.o = options

    @property
    def optimizer(self) -> str:
        """Adam."""
        return "adam"

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> Any:
        """A fresh hub; each strategy's own."""
        raise NotImplementedError

    def settle(
        self,
        state: Any,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> Any:
        """Nothing: nobody was asked for weights."""
        return state

    def end_round(self, state: Any, round: int) -> Any:
        """Nothing: rounds are alike."""
        return state

    def save(self, state: Any) -> dict[str, Any]:
        """Everything between two rounds."""
        return pack(state)

    def load(self, fleet: Fleet, upper: nn.Module, saved: Mapping[str, Any]) -> Any:
        """Take what `save` gave."""
        state = self.init(fleet, upper, rounds=saved.get("rounds", 0), seed=saved.get("seed", 0))
        unpack(saved, state)
        return state


class Cut(_Side):
    """The hub has one upper segment, `upper` in the state, and learns from one activation after the other."""

    answers: ClassVar[bool] = False
    """Whether the gradient of the hub's loss goes down."""

    def segment(self, fleet: Fleet, upper: nn.Module, seed: int) -> UpperSegment:
        """A fresh upper segment that learns by the options' Adam."""
        return UpperSegment(upper, len(fleet), Tuning(self.o.lr, self.o.weight_decay), seed)

    def learn(self, state: Any, round: int, step: int, batches: Mapping[str, Batch]) -> tuple[Any, dict[str, Learned]]:
        """A hub step on CE(M_s(a), y)."""
        ((device, batch),) = batches.items()
        i = state.fleet.index(device)
        loss, gradient = state.upper.step(i, batch.smashed, batch.labels, gradient=self.answers)
        return state, {device: Learned(loss, gradient)}

    def stand(self, state: Any, device: str, present: Collection[str]) -> Stand:
        """Its own; a newcomer gets that of the device with the most samples that is there [ours]."""
        if device in state.fleet.names:
            return Stand()
        donors = [member for member in state.fleet.members if member.name in present]
        return Stand(donor=max(donors, key=lambda member: member.samples).name if donors else None)

    def predict(self, state: Any, device: str, smashed: Tensor) -> Tensor:
        """Logits; the same upper segment for everybody."""
        return state.upper.predict(None, smashed)

    def samples(self, state: Any) -> int:
        """As the upper segment counted them."""
        return state.upper.samples


class Averaging(Cut):
    """One whose devices give what they train; its mean, weighted by training samples, is `mean` in the state."""

    def settle(
        self,
        state: Any,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> Any:
        """Average what was given; with nothing given the mean stays."""
        if states:
            state.mean = mean(states, shares(state.fleet, states))
        return state

    def stand(self, state: Any, device: str, present: Collection[str]) -> Stand:
        """The mean of the lower segments; while there is none, its own, or another's for a newcomer."""
        return super().stand(state, device, present) if state.mean is None else Stand(without_head(state.mean))


def without_head(trained: Lower | None) -> Lower | None:
    """The lower segment of what a device trains: all that an evaluation or a `forward` order needs."""
    if trained is None:
        return None
    return {name: array for name, array in trained.items() if not name.startswith("head.")}


@dataclass(frozen=True)
class UncutOptions:
    """How long the devices train between two averages."""

    weight_decay: Annotated[float, Range(0, 1)] = 1e-5
    """Added to the gradient."""

    epochs: Annotated[int, Range(1, 10_000)] = 1
    """E, local epochs of a round."""

    steps: Literal["own", "longest"] = "own"
    """Steps of an epoch: each device's own batches, or as many as the device with the most has (others recycle their samples)."""


class Uncut(_Side):
    """The devices train the whole model: the hub has no segment and learns from no activation.

    The smashed data of an uncut model are its logits. A state has `weights`, the global ones, or None while the hub
    knows none and every device has those of the bundle.
    """

    def learn(self, state: Any, round: int, step: int, batches: Mapping[str, Batch]) -> NoReturn:
        """Nothing is asked for, so nothing can come.

        Raises:
            RuntimeError: always.
        """
        raise RuntimeError(
            f"{type(self).__name__} trains the whole model on the devices: the hub has nothing to learn from the "
            f"smashed data of {', '.join(batches)} (step {step} of round {round})"
        )

    def steps(self, fleet: Fleet, name: str) -> int:
        """Steps of a device's round: E local epochs."""
        own = fleet.members[fleet.index(name)].batches
        return int(self.o.epochs * (fleet.steps if self.o.steps == "longest" else own))

    def stand(self, state: Any, device: str, present: Collection[str]) -> Stand:
        """The global weights for everybody, strangers included; before there are any, the device's own."""
        return Stand(state.weights)

    def predict(self, state: Any, device: str, smashed: Tensor) -> Tensor:
        """What the device sent are the logits already."""
        return smashed

    def samples(self, state: Any) -> int:
        """None ever goes through the hub."""
        return 0


def done(report: Mapping[str, Any], ordered: int) -> int:
    """Steps that a device did of so many: fewer where the joules or CPU seconds of the round did not carry them all."""
    steps = report.get("steps")
    return min(steps, ordered) if type(steps) is int and steps > 0 else ordered


def ask_for_weights(fleet: Fleet, turn: int, present: Collection[str]) -> Orders | None:
    """Orders that train nothing and bring the hub one device's weights; None once everybody could have been asked.

    For methods whose first update needs the weights that everybody started from: only the devices have them.
    """
    if not present or turn >= len(fleet):
        return None
    # Another one in every turn: who was asked and did not answer may still count as present.
    name = sorted(present)[turn % len(present)]
    return {name: Order(kind="local", first_step=0, steps=0, give=("lower",))}
