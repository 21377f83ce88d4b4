"""The same steps in plain PyTorch, at float64 (the truth) or float32 (the control). Only the dropout noise is shared."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from export.builder import Noise
from export.step import StepMaker

aten = torch.ops.aten
Arrays = Mapping[str, np.ndarray]


class SharedNoise(TorchDispatchMode):
    """Answers the draws of dropout, in order, from given uniform noise."""

    def __init__(self, arrays: Arrays, noise: Mapping[str, Noise]) -> None:
        super().__init__()
        self._draws: Iterator[tuple[np.ndarray, Noise]] = iter([(arrays[name], kind) for name, kind in noise.items()])

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if func in (aten.bernoulli_.float, aten.bernoulli.p):
            uniform, kind = next(self._draws)
            drawn = torch.from_numpy(uniform).movedim(0, kind.axis).reshape(args[0].shape) < args[1]
            return args[0].copy_(drawn) if func == aten.bernoulli_.float else drawn.to(args[0].dtype)
        return func(*args, **(kwargs or {}))


class Reference:
    """Plain modules and a plain ``torch.optim`` optimizer, fed and read through the flat state of the graphs."""

    def __init__(self, steps: StepMaker, dtype: torch.dtype) -> None:
        self.steps = steps
        self.dtype = dtype
        self.learner = copy.deepcopy(steps.learner).to(dtype)
        self.named = {**dict(self.learner.named_parameters()), **dict(self.learner.named_buffers())}
        self.trained = [self.named[piece.name] for piece in steps.slices if piece.state == "weights"]

    def smash(self, kind: str, arrays: Arrays, noise: Mapping[str, Noise]) -> np.ndarray:
        """Return the smashed data of a forward or evaluate graph's inputs."""
        self.load(arrays)
        self.learner.train(kind == "forward")
        with torch.no_grad(), SharedNoise(arrays, noise):
            return self.learner.lower(self._tensor(arrays["batch.x"])).numpy()

    def learn(self, arrays: Arrays, noise: Mapping[str, Noise]) -> dict[str, np.ndarray]:
        """Return the outputs of a local or backward graph, but for the optimizer's: gradient, loss, metrics, smashed data, buffers."""
        self.load(arrays)
        self.learner.train()
        down = self._tensor(arrays["down.gradient"]) if "down.gradient" in arrays else None
        setting = {
            name.removeprefix("setting."): self._tensor(value)
            for name, value in arrays.items()
            if name.startswith("setting.")
        }
        for weight in self.trained:
            weight.grad = None
        with SharedNoise(arrays, noise):
            loss, smashed, metrics = self.learner(
                self._tensor(arrays["batch.x"]), torch.from_numpy(arrays["batch.y"]), down, setting
            )
            loss.backward()
        gradient = [torch.zeros_like(weight) if weight.grad is None else weight.grad for weight in self.trained]
        results = {"metric.loss": loss, "up.smashed": smashed, "check.gradient": _flat(gradient)}
        results |= {f"metric.{name}": value for name, value in metrics.items()}
        buffers = [self.named[piece.name] for piece in self.steps.slices if piece.state == "buffers"]
        if buffers:
            results["state.buffers.next"] = _flat(buffers)
        return {name: value.detach().numpy() for name, value in results.items()}

    def update(self, arrays: Arrays, gradient: np.ndarray) -> dict[str, np.ndarray]:
        """Return the optimizer's new state vectors for a given flat gradient."""
        self.load(arrays)
        rule = self.steps.optimizer
        optimizer = rule.reference(self.trained, {name: float(arrays[f"setting.{name}"]) for name in rule.settings})
        state, setting = (
            {name.removeprefix(route): self._tensor(value) for name, value in arrays.items() if name.startswith(route)}
            for route in ("state.", "setting.")
        )
        pieces = self._pieces(self.steps.corrected(self._tensor(gradient), state, setting))
        moments = {
            torch_name: self._pieces(self._tensor(arrays[f"state.{name}"])) for name, torch_name in rule.moments.items()
        }
        for place, weight in enumerate(self.trained):
            weight.grad = pieces[place]
            optimizer.state[weight] = {name: parts[place].clone() for name, parts in moments.items()}
            if rule.counts:
                optimizer.state[weight]["step"] = torch.tensor(float(arrays["state.steps"]))
        optimizer.step()
        after = {
            name: _flat([optimizer.state[weight][torch_name] for weight in self.trained])
            for name, torch_name in rule.moments.items()
        }
        if rule.counts:
            after["steps"] = optimizer.state[self.trained[0]]["step"]
        after["weights"] = _flat(self.trained)
        return {f"state.{name}.next": value.detach().numpy() for name, value in after.items()}

    def step(self, arrays: Arrays, noise: Mapping[str, Noise]) -> dict[str, np.ndarray]:
        """Return everything a training graph gives."""
        learned = self.learn(arrays, noise)
        return {**learned, **self.update(arrays, learned["check.gradient"])}

    def between(self, kind: str, arrays: Arrays) -> dict[str, np.ndarray]:
        """Return the outputs of a `begin` or `end` graph."""
        results = self.steps.run(kind, {name: self._tensor(value) for name, value in arrays.items()})
        return {name: value.numpy() for name, value in results.items()}

    def load(self, arrays: Arrays) -> None:
        """Copy the flat weights and buffers into the modules."""
        with torch.no_grad():
            for piece in self.steps.slices:
                flat = torch.from_numpy(arrays[f"state.{piece.state}"])
                self.named[piece.name].copy_(flat[piece.offset : piece.offset + piece.size].view(piece.shape))

    def _pieces(self, flat: Tensor) -> list[Tensor]:
        parts = [piece for piece in self.steps.slices if piece.state == "weights"]
        return [flat[piece.offset : piece.offset + piece.size].view(piece.shape).clone() for piece in parts]

    def _tensor(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(np.array(array))
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1) for tensor in tensors])
