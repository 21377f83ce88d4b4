"""The functions that become graphs: plain PyTorch from routed input tensors to routed output tensors."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value

from edge.wire.manifest import Setting, Slice
from export.corrections import Correction
from export.errors import ExportError
from export.objectives import Given, Objective
from export.optimizers import Optimizer

Tensors = dict[str, Tensor]


class Learner(nn.Module):
    """The lower segment and the objective's head: everything a device trains."""

    def __init__(self, lower: nn.Module, head: nn.Module, objective: Objective) -> None:
        super().__init__()
        self.lower = lower
        self.head = head
        self.objective = objective

    def forward(
        self, x: Tensor, y: Tensor, down: Tensor | None, setting: Mapping[str, Tensor]
    ) -> tuple[Tensor, Tensor, Tensors]:
        """Return loss, smashed data and metrics of one training step."""
        smashed = self.lower(x)
        loss, metrics = self.objective.loss(Given(x, y, smashed, down, self.head, setting))
        return loss, smashed, metrics


@dataclass(frozen=True)
class StepMaker:
    """A learner with its state laid out in flat vectors, and its steps as functions of them.

    Attributes:
        learner: The modules.
        optimizer: The update rule.
        x: One input batch of two samples, for shapes and types.
        smashed_shape: Shape of the smashed data without batch.
        slices: The layout of the state.
    """

    learner: Learner
    optimizer: Optimizer
    x: Tensor
    smashed_shape: tuple[int, ...]
    slices: tuple[Slice, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "slices", tuple(_layout(self.learner, self.x)))

    @property
    def settings(self) -> dict[str, Setting]:
        """Every hyperparameter of the optimizer, the objective and its correction."""
        correction = self.correction
        return {**self.optimizer.settings, **self.objective.settings, **(correction.settings if correction else {})}

    @property
    def objective(self) -> Objective:
        """What is minimised."""
        return self.learner.objective

    @property
    def correction(self) -> Correction | None:
        """What happens to its gradient."""
        return self.objective.correction

    def initial_state(self) -> Tensors:
        """Return the state vectors before the first step."""
        named = _named(self.learner)
        weights = torch.cat(
            [named[piece.name].detach().reshape(-1) for piece in self.slices if piece.state == "weights"]
        )
        further = [*self.optimizer.moments, *(self.correction.vectors if self.correction else ())]
        state = {"weights": weights.float(), **{name: torch.zeros_like(weights) for name in further}}
        if self.optimizer.counts:
            state["steps"] = torch.zeros(())
        buffers = [named[piece.name].detach().reshape(-1) for piece in self.slices if piece.state == "buffers"]
        return {**state, "buffers": torch.cat(buffers)} if buffers else state

    def inputs(self, kind: str, batch: int) -> Tensors:
        """Return example tensors for every routed input of a graph of one kind, constants of the model included."""
        sees, trains = kind not in {"begin", "end"}, kind not in {"forward", "evaluate"}
        inputs: Tensors = {}
        if sees:
            inputs["batch.x"] = self.x[:1].expand(batch, *self.x.shape[1:]).contiguous()
        if sees and trains:
            inputs["batch.y"] = torch.zeros(batch, dtype=torch.int64)
        if kind == "backward":
            inputs["down.gradient"] = torch.zeros(batch, *self.smashed_shape)
        kept = self.initial_state()
        inputs |= {f"state.{name}": value for name, value in kept.items() if trains or name in {"weights", "buffers"}}
        if trains:
            inputs |= {f"setting.{name}": torch.tensor(setting.default) for name, setting in self.settings.items()}
        return inputs | ({f"constant.{name}": value for name, value in self.constants().items()} if sees else {})

    def constants(self) -> Tensors:
        """Return what belongs to the modules but never changes: frozen parameters, and buffers that no step writes."""
        kept = {piece.name for piece in self.slices}
        return {
            name: value.detach()
            for name, value in _named(self.learner).items()
            if name not in kept and not _is_counter(name)
        }

    def run(self, kind: str, tensors: Tensors) -> Tensors:
        """Return the routed outputs of a step of one kind; a training step also gives ``check.gradient``, flat."""
        tensors = {name: value.clone() if name.startswith("constant.") else value for name, value in tensors.items()}
        if kind in {"forward", "evaluate"}:
            return self._smash(tensors, training=kind == "forward")
        return self._between(kind, tensors) if kind in {"begin", "end"} else self._learn(tensors)

    def _between(self, kind: str, tensors: Tensors) -> Tensors:
        """Return what a `begin` or an `end` graph gives; a round begins with new moments."""
        if self.correction is None:
            raise ValueError("only objectives with a correction have graphs for the round's begin and end")
        state, setting = _routed(tensors, "state."), _routed(tensors, "setting.")
        if kind == "end":
            after, up = self.correction.end(state, setting)
        else:
            kept = [*self.optimizer.moments, *(["steps"] if self.optimizer.counts else [])]
            after, up = {name: torch.zeros_like(state[name]) for name in kept} | self.correction.begin(state), {}
        return _named_next(after) | {f"up.{name}": value for name, value in up.items()}

    def _smash(self, tensors: Tensors, *, training: bool) -> Tensors:
        self.learner.train(training)
        modules = self._modules(tensors, tensors["state.weights"], tensors.get("state.buffers"))
        lower = {name.removeprefix("lower."): value for name, value in modules.items() if name.startswith("lower.")}
        return {"up.smashed": functional_call(self.learner.lower, lower, (tensors["batch.x"],))}

    def _learn(self, tensors: Tensors) -> Tensors:
        self.learner.train()
        state, setting = _routed(tensors, "state."), _routed(tensors, "setting.")
        down = tensors.get("down.gradient")

        def loss(weights: Tensors) -> tuple[Tensor, tuple[Any, ...]]:
            buffers = state["buffers"].clone() if "buffers" in state else None
            modules = {**self._modules(tensors, None, buffers), **weights}
            value, smashed, metrics = functional_call(
                self.learner, modules, (tensors["batch.x"], tensors["batch.y"], down, setting)
            )
            written = [modules[piece.name].reshape(-1) for piece in self.slices if piece.state == "buffers"]
            return value, (smashed, metrics, written)

        gradients, (value, (smashed, metrics, written)) = grad_and_value(loss, has_aux=True)(
            self._views(state["weights"], "weights")
        )
        gradient = torch.cat([gradients[piece.name].reshape(-1) for piece in self.slices if piece.state == "weights"])
        after = self.optimizer.update(state, self.corrected(gradient, state, setting), setting)
        if written:
            after["buffers"] = torch.cat(written)
        sent = {} if down is not None else {"up.smashed": smashed}
        nonzero = (smashed != 0).to(torch.float32).mean()
        return {
            **_named_next({name: after[name] for name in state if name in after}),
            **sent,
            "metric.loss": value,
            "metric.nonzero": nonzero,
            **{f"metric.{name}": metric for name, metric in metrics.items()},
            "check.gradient": gradient,
        }

    def corrected(self, gradient: Tensor, state: Tensors, setting: Tensors) -> Tensor:
        """Return the flat gradient that the optimizer gets."""
        return self.correction.gradient(gradient, state, setting) if self.correction else gradient

    def _modules(self, tensors: Tensors, weights: Tensor | None, buffers: Tensor | None) -> Tensors:
        found = {
            name.removeprefix("constant."): value for name, value in tensors.items() if name.startswith("constant.")
        }
        if weights is not None:
            found |= self._views(weights, "weights")
        if buffers is not None:
            found |= {name: view.clone() for name, view in self._views(buffers, "buffers").items()}
        counters = [name for name in _named(self.learner) if _is_counter(name)]
        return found | {name: torch.zeros((), dtype=torch.int64).add(0) for name in counters}

    def _views(self, vector: Tensor, state: str) -> Tensors:
        pieces = [piece for piece in self.slices if piece.state == state]
        parts = torch.split(vector, [piece.size for piece in pieces])
        return {piece.name: part.view(piece.shape) for piece, part in zip(pieces, parts, strict=True)}


def _named(learner: Learner) -> Tensors:
    return {**dict(learner.named_parameters()), **dict(learner.named_buffers())}


def _routed(tensors: Tensors, route: str) -> Tensors:
    return {name.removeprefix(route): value for name, value in tensors.items() if name.startswith(route)}


def _named_next(state: Tensors) -> Tensors:
    return {f"state.{name}.next": value for name, value in state.items()}


def _is_counter(name: str) -> bool:
    return name.endswith("num_batches_tracked")


def _layout(learner: Learner, x: Tensor) -> list[Slice]:
    slices: list[Slice] = []
    written = _written_buffers(learner, x)
    groups = {
        "weights": {name: value for name, value in learner.named_parameters() if value.requires_grad},
        "buffers": {name: value for name, value in learner.named_buffers() if name in written},
    }
    for state, group in groups.items():
        offset = 0
        for name, value in group.items():
            if value.dtype != torch.float32:
                raise ExportError(
                    f"'{name}' of the lower segment is {value.dtype}; only float32 can be trained on a device"
                )
            part = "head" if name.startswith("head.") else "lower"
            slices.append(Slice(name, state, offset, tuple(value.shape), part))
            offset += value.numel()
    if not any(piece.state == "weights" for piece in slices):
        raise ExportError("the lower segment has no trainable parameter: cut higher up")
    return slices


def _written_buffers(learner: Learner, x: Tensor) -> set[str]:
    """Return the buffers that a training forward pass writes; the pass is undone."""
    _refuse_cumulative(learner)
    buffers = dict(learner.lower.named_buffers())
    before = {name: value.clone() for name, value in buffers.items()}
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        # Zeros would leave a running mean of zeros as it is.
        learner.lower.train()(torch.rand_like(x) if x.is_floating_point() else x)
        written = {name for name, value in buffers.items() if not torch.equal(value, before[name])}
        for name, value in buffers.items():
            value.copy_(before[name])
    return {f"lower.{name}" for name in written if not _is_counter(name)}


def _refuse_cumulative(learner: Learner) -> None:
    for name, module in learner.lower.named_modules():
        if getattr(module, "track_running_stats", False) and getattr(module, "momentum", 0.1) is None:
            raise ExportError(
                f"the layer '{name}' has momentum=None (a cumulative average), which cannot be exported; give it a momentum, such as 0.1"
            )
