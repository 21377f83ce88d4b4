"""Which layer brought an operator in, or stopped a trace: what a refusal must name."""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode


class LayerTracker:
    """Knows which layer of a module is running, and which one ran last."""

    def __init__(self, module: nn.Module) -> None:
        self.running: list[str] = []
        self.last = ""
        self._module = module

    @contextlib.contextmanager
    def watching(self) -> Iterator["LayerTracker"]:
        """Follow the module's layers while the block runs."""
        hooks = []
        for name, layer in self._module.named_modules():
            hooks.append(layer.register_forward_pre_hook(self._entering(name)))
            hooks.append(layer.register_forward_hook(self._left))
        try:
            yield self
        finally:
            for hook in hooks:
                hook.remove()

    def name(self) -> str:
        """Return the innermost layer that has been entered and not left."""
        return self.running[-1] if self.running else self.last

    def _entering(self, name: str) -> Any:
        def enter(_: nn.Module, __: Any) -> None:
            self.running.append(name)
            self.last = name

        return enter

    def _left(self, _: nn.Module, __: Any, ___: Any) -> None:
        if self.running:
            self.running.pop()


class _Log(TorchDispatchMode):
    """Notes for each aten operator the layer that first calls it."""

    def __init__(self, tracker: LayerTracker) -> None:
        super().__init__()
        self.layers: dict[str, str] = {}
        self._tracker = tracker

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self.layers.setdefault(_plain(func), self._tracker.name())
        return func(*args, **(kwargs or {}))


def layer_of(op: Any, lower: nn.Module, x: Tensor) -> str:
    """Return the layer of ``lower`` that calls the operator, or the one it is the gradient of; "" if none does.

    Example:
        >>> layer_of(torch.ops.aten.cumprod.default, lower, x)  # doctest: +SKIP
        'block1.scan'
    """
    wanted = _plain(op)
    with (
        LayerTracker(lower).watching() as tracker,
        _Log(tracker) as log,
        torch.no_grad(),
        torch.random.fork_rng(devices=[]),
    ):
        lower.train()(x)
    found = [layer for name, layer in log.layers.items() if name == wanted]
    return found[0] if found else ""


def _plain(op: Any) -> str:
    """Return an operator's name without namespace, overload, and what marks a gradient or an in-place variant."""
    name = str(op).removeprefix("aten.").partition(".")[0].strip("_")
    for suffix in ("_functional", "_backward", "_backward_data"):
        name = name.removesuffix(suffix)
    return name
