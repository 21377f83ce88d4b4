"""AdaSplit: Adaptive Trade-offs for Resource-constrained Distributed Deep Learning (Chopra et al., 2021, arXiv 2112.01637).

    local phase    the first int(κR) rounds: every device trains its lower segment M_c and its projection head H on
                   L_c = NTXent_τ(H(a), y) + β Σ|a|, and sends nothing
    global phase   every iteration, k = ηN devices are selected by an upper confidence bound (`hub.selection`). All train
                   as before; the selected also send (a, y), and for each the hub takes a step on
                   L_s = CE(M_s(a; U ⊙ σ(V_i)), y) + λ Σ_all devices Σ σ(V)            (`hub.segment`)
    never          does a gradient come down

The defaults are the paper's setting, from the authors' code (λ is theirs for Mixed-NonIID); then come the ablations and ours.
The rounds of the local phase cost no bytes, and neither do the hub's further steps on what it has received (`replay`).
Nor do the further steps of devices that have lost their hub (`offline_steps`).

Devices that are away are not selected; a selected device whose activation never comes counts as not selected.
"""

# ruff: noqa: A002, ARG002, RUF001, RUF002  arguments are the contract's, letters the paper's

import math
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from edge.wire.toml_fields import Range
from hub import selection
from hub.segment import Replay, Tuning, UpperSegment
from hub.selection import History
from hub.sparsity import steered
from hub.strategies.base import Batch, Fleet, Kind, Learned, Lower, Order, Orders, Outlook, Stand
from hub.strategies.checkpoint import BRIEF
from hub.strategies.sides import Cut

OFTEN = 1.5
"""Selections of a device in the run, on the average, at least: whom the hub never hears it does not learn."""
MOST_CONTROL = 0.25
"""Share of what is left that orders and reports may take before a selection serves more iterations."""


@dataclass(frozen=True)
class AdaSplitOptions:
    """How AdaSplit trades accuracy, bytes and computation."""

    kappa: Annotated[float, Range(0, 1)] = 0.6
    """κ, the share of the rounds in which nobody sends."""

    eta: Annotated[float, Range(0, 1)] = 0.6
    """η, the share of the devices that send in an iteration of the global phase; at least one does."""

    gamma: Annotated[float, Range(0, 1)] = 0.75
    """γ, the bandit's discount of an iteration against the next."""

    beta: Annotated[float, Range(0, 1e3)] = 0.0
    """β, the weight of Σ|a|: more zeros in what is sent."""

    nonzero: Annotated[float | None, Range(1e-3, 1)] = None
    """Share of the elements of activations that are not to be zero: β is steered towards it, for each device by itself, from what it last sent. Unset, β stays as it is. Ours."""

    temperature: Annotated[float, Range(1e-3, 100)] = 0.07
    """τ of the contrastive loss."""

    masks: bool = True
    """Whether each device has a soft mask of its own on the upper segment."""

    mask_weight: Annotated[float, Range(0, 1)] = 1e-3
    """λ, the weight of Σ σ(V)."""

    lr: Annotated[float, Range(0, 10)] = 1e-3
    """Adam's learning rate on both sides at the start."""

    weight_decay: Annotated[float, Range(0, 1)] = 1e-5
    """Added to the gradient, on both sides."""

    schedule: Literal["cosine", "constant"] = "cosine"
    """How the learning rate goes on from round to round, on both sides. Where κ is near 1 the cosine leaves the hub little to learn with."""

    t_max: Annotated[int | None, Range(1, 1_000_000)] = None
    """Rounds of half a period of the cosine that the learning rate follows; unset, two more than the run has (22 at the paper's 20)."""

    selection: Literal["ucb", "random"] = "ucb"
    """Who sends: those the bandit prefers, or any."""

    select_every: Annotated[int, Range(1, 1_000_000)] = 1
    """Iterations that one selection serves; more spare slow links a message each."""

    server_gradient: bool = False
    """Whether the selected also wait for the gradient of the hub's loss, and add it to their own."""

    frozen: bool = False
    """Whether the lower segments stay as they are; there is no local phase then."""

    handover: bool = False
    """Whether each device goes on with its predecessor's lower segment after every iteration, as in the authors' code. They did not count those bytes; here they are sent."""

    replay: Annotated[int, Range(0, 10_000)] = 0
    """Further hub steps for each received batch, on samples received before. Ours."""

    replay_megabytes: Annotated[float, Range(0, 1e6)] = 256.0
    """Memory (10^6 bytes) for what was received, part of every checkpoint; the oldest samples make way."""

    offline_steps: Annotated[int, Range(0, 1_000_000)] = 0
    """Further local steps that a device may do after each order while it has no connection to the hub; it goes on with the hub at once when it is back. Ours."""

    def problems(self) -> Iterator[str]:
        """Sentences about options that do not go together."""
        if self.handover and self.select_every != 1:
            yield f"handover happens after every iteration: select_every = {self.select_every}: must be 1"
        if self.frozen and (self.handover or self.server_gradient):
            yield "frozen = true: a lower segment that does not learn has no use for handover or server_gradient"
        if self.offline_steps and (self.frozen or self.handover):
            yield (
                f"offline_steps = {self.offline_steps}: with frozen or handover nothing that a device learns "
                "of its own is kept: must be 0"
            )


@dataclass
class State:
    """What changes in a run."""

    fleet: Fleet
    rounds: int
    seed: int
    upper: UpperSegment
    replay: Replay
    history: History
    iteration: int = 0
    """Iterations of the global phase so far."""
    losses: dict[int, dict[int, float]] = field(default_factory=dict, metadata=BRIEF)
    """In this turn, by step and device number."""
    steps: range = field(default_factory=partial(range, 0), metadata=BRIEF)
    """Of this turn."""
    handed: dict[str, Lower] = field(default_factory=dict)
    """The lower segment each device gave last."""
    betas: dict[str, float] = field(default_factory=dict)
    """β of each device, where it is steered."""
    more_local: int | None = None
    """Rounds by which the local phase is longer, because of what the devices can pay; None before that is known."""
    joined: int = 0
    """Iterations that one selection serves, where that is more than was asked for."""
    sparing: bool = False
    """Whether devices that are not selected are told nothing in the global phase: budgets are to go to activations, not to orders."""
    outlook: Outlook = field(default=Outlook(), metadata=BRIEF)
    """What the devices' budgets allow in the turn to come."""


class AdaSplit(Cut):
    """The strategy."""

    options: ClassVar[type] = AdaSplitOptions
    objective = "contrastive"

    def init(self, fleet: Fleet, upper: nn.Module, *, rounds: int, seed: int) -> State:
        """A fresh hub: U from the bundle, V from N(0, 1)."""
        tuning = Tuning(self.o.lr, self.o.weight_decay, self.o.masks, self.o.mask_weight)
        return State(
            fleet,
            rounds,
            seed,
            UpperSegment(upper, len(fleet), tuning, seed),
            Replay(int(self.o.replay_megabytes * 1e6)),
            History.empty(len(fleet)),
        )

    def turn(self, state: State, round: int, turn: int, present: Collection[str]) -> tuple[State, Orders | None]:
        """One turn for a whole round of the local phase; one for every `select_every` iterations of the global phase."""
        local = self._is_local(state, round)
        if not turn and not local and not self.o.handover and state.outlook.control > MOST_CONTROL:
            more = min(state.fleet.steps, 2 * max(self.o.select_every, state.joined))
            if self._chosen(state, state.rounds - round, more) >= OFTEN:
                state.joined = more
            state.sparing = True
        length = state.fleet.steps if local and not self.o.handover else max(self.o.select_every, state.joined)
        state.steps = range(state.fleet.steps)[turn * length : (turn + 1) * length]
        if not state.steps:
            return state, None
        state.losses = {}
        state.upper.set_lr(self._lr(state, round))
        selected = set() if local else self._select(state, present)
        settings = {
            "lr": self._lr(state, round),
            "weight_decay": self.o.weight_decay,
            "temperature": self.o.temperature,
        }
        orders = {
            name: self._order(
                state, name, {**settings, "beta": state.betas.get(name, self.o.beta)}, sends=name in selected
            )
            for name in sorted(selected if state.sparing and not local else present)
        }
        return state, {name: order for name, order in orders.items() if order is not None}

    def learn(
        self, state: State, round: int, step: int, batches: Mapping[str, Batch]
    ) -> tuple[State, dict[str, Learned]]:
        """A hub step on L_s, and `replay` more on what came before."""
        ((device, batch),) = batches.items()
        i = state.fleet.index(device)
        loss, gradient = state.upper.step(i, batch.smashed, batch.labels, gradient=self.o.server_gradient)
        state.losses.setdefault(step, {})[i] = loss
        if self.o.replay:
            state.upper.learn_again(state.replay, self.o.replay)
            state.replay.add(i, batch.smashed, batch.labels)
        return state, {device: Learned(loss, gradient)}

    def settle(
        self,
        state: State,
        round: int,
        turn: int,
        reports: Mapping[str, Mapping[str, Any]],
        states: Mapping[str, Lower],
    ) -> State:
        """Tell the bandit what each iteration of the turn brought, and steer β by what the devices say of it."""
        state.handed = dict(states)
        for name, metrics in reports.items():
            share = metrics.get("nonzero_share")
            if self.o.nonzero is not None and isinstance(share, (int, float)):
                before = state.betas.get(name, self.o.beta)
                state.betas[name] = steered(before, float(share), self.o.nonzero)
        if not self._is_local(state, round):
            for step in state.steps:
                state.history = state.history.after(state.losses.get(step, {}))
                state.iteration += 1
        return state

    def stand(self, state: State, device: str, present: Collection[str]) -> Stand:
        """Its own; a newcomer gets that of the device which the hub serves best of those that are there."""
        if device in state.fleet.names:
            return Stand()
        served = [name for name in present if name in state.fleet.names]
        return Stand(
            donor=min(served, key=lambda name: state.history.losses[-1, state.fleet.index(name)], default=None)
        )

    def predict(self, state: State, device: str, smashed: Tensor) -> Tensor:
        """Logits through the device's mask; a device that is not of the fleet gets the mean of all masks."""
        return state.upper.predict(state.fleet.index(device) if device in state.fleet.names else None, smashed)

    def uploads_left(self, state: State, device: str) -> float:
        """Activations that a device will still be asked for if every device is selected as often as the others; see `hub.means`."""
        iterations = (state.rounds - self._longer(state)) * state.fleet.steps - state.iteration
        return iterations * max(1, round(self.o.eta * len(state.fleet))) / len(state.fleet)

    def foresee(self, state: State, outlook: Outlook) -> State:
        """The bandit leaves out who rests; orders, κ and `select_every` follow what can be paid.

        Where the orders and reports of the global phase would take too much, devices that are not selected get none, and their lower
        segments wait; and a selection serves more iterations, up to a round. κ: where that is not enough, the first rounds of
        the global phase become local, before the run begins. Neither of the two goes so far that a device would be selected less than
        1.5 times.
        """
        state.outlook = outlook
        if state.more_local is None:
            self._plan(state)
        return state

    def orders_to_come(self, state: State) -> float:
        """Of the global phase, a device's: one in each turn, or in those in which it is selected."""
        rounds, length = state.rounds - self._longer(state), max(self.o.select_every, state.joined)
        return self._chosen(state, rounds, length) if state.sparing else float(rounds * self._turns(state, length))

    def quiet_rounds(self, state: State) -> int:
        """The local phase, unless something changes from round to round in it."""
        return 0 if self.o.handover or self.o.schedule != "constant" else self._longer(state)

    def _local_rounds(self, state: State) -> int:
        # 0.29 * 100 is 28.999…: the tiny number mends what binary fractions lose.
        return 0 if self.o.frozen else int(self.o.kappa * state.rounds + 1e-9)

    def _is_local(self, state: State, round: int) -> bool:
        return round < self._longer(state)

    def _longer(self, state: State) -> int:
        """Rounds of the local phase, with what the devices' budgets add to it."""
        return self._local_rounds(state) + (state.more_local or 0)

    def _plan(self, state: State) -> None:
        """For the whole run, from what can be paid before it."""
        orders, rounds = state.outlook.orders, state.rounds - self._local_rounds(state)
        state.more_local = 0
        if orders is None or self.o.handover or self.o.frozen:
            return
        length = min(self.o.select_every, state.fleet.steps)
        state.sparing = rounds * self._turns(state, length) > orders
        while rounds * self._turns(state, length) > orders and length < state.fleet.steps:
            longer = min(state.fleet.steps, 2 * length)
            if self._chosen(state, rounds, longer) < OFTEN:
                break
            length = longer
        state.joined = length
        while self._chosen(state, rounds, length) > orders and self._chosen(state, rounds - 1, length) >= OFTEN:
            state.more_local, rounds = state.more_local + 1, rounds - 1

    def _turns(self, state: State, length: int) -> int:
        """Of a global round, if a selection serves so many iterations."""
        return -(-state.fleet.steps // length)

    def _chosen(self, state: State, rounds: int, length: int) -> float:
        """How often a device will be selected in so many global rounds, on the average."""
        return rounds * self._turns(state, length) * max(1, round(self.o.eta * len(state.fleet))) / len(state.fleet)

    def _lr(self, state: State, round: int) -> float:
        if self.o.schedule == "constant":
            return self.o.lr
        t_max = self.o.t_max or state.rounds + 2
        return self.o.lr * (1 + math.cos(math.pi * round / t_max)) / 2

    def _select(self, state: State, present: Collection[str]) -> set[str]:
        k = max(1, round(self.o.eta * len(state.fleet)))
        candidates = [state.fleet.index(name) for name in present if name not in state.outlook.resting]
        rng = np.random.default_rng([state.seed, 1, state.iteration])
        if self.o.selection == "random":
            chosen = selection.by_chance(k, candidates, rng)
        else:
            chosen = selection.largest(state.history.scores(self.o.gamma), k, candidates, rng)
        return {state.fleet.names[i] for i in chosen}

    def _order(self, state: State, name: str, settings: Mapping[str, float], *, sends: bool) -> Order | None:
        if self.o.frozen and not sends:
            return None
        kind: Kind = "forward" if self.o.frozen else "exchange" if sends and self.o.server_gradient else "local"
        predecessor = state.fleet.names[state.fleet.index(name) - 1]
        return Order(
            kind=kind,
            first_step=state.steps.start,
            steps=len(state.steps),
            send=tuple(state.steps) if sends else (),
            settings=settings,
            state=state.handed.get(predecessor) if len(state.fleet) > 1 else None,
            give=("lower",) if self.o.handover else (),
            beyond=self.o.offline_steps if kind == "local" else 0,
        )
