"""Local response norm with a short gradient: torch spells it as padding, 3-D pooling and powers, a dozen passes each way."""

from typing import Any

import torch
from torch import Tensor


def local_response_norm(x: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """Return ``torch.nn.functional.local_response_norm`` of (batch, channels, ...)."""
    return _Normalise.apply(x, size, alpha, beta, k)[0]


def band(channels: int, size: int) -> Tensor:
    """Return the matrix (channels, channels) that averages each channel's window: size // 2 before it, the rest after."""
    places = torch.arange(channels)
    ahead = places[None, :] - places[:, None]
    return ((ahead >= -(size // 2)) & (ahead < size - size // 2)).to(torch.float32) / size


class _Normalise(torch.autograd.Function):
    """y = x * s**-beta with s = k + alpha * (band @ x**2)."""

    @staticmethod
    def forward(x: Tensor, size: int, alpha: float, beta: float, k: float) -> tuple[Tensor, Tensor, Tensor]:
        flat = x.flatten(2)
        scale = torch.matmul(alpha * band(x.shape[1], size), flat * flat) + k
        power = scale.pow(-beta)
        return (flat * power).view(x.shape), scale, power

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
        x, ctx.size, ctx.alpha, ctx.beta, _ = inputs
        ctx.save_for_backward(x, *output[1:])
        ctx.mark_non_differentiable(*output[1:])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor, *_: Tensor) -> tuple[Tensor, None, None, None, None]:
        x, scale, power = ctx.saved_tensors
        flat = x.flatten(2)
        direct = gradient.flatten(2) * power
        across = torch.matmul((2.0 * ctx.alpha * ctx.beta * band(x.shape[1], ctx.size)).t(), direct * flat / scale)
        return (direct - flat * across).view(x.shape), None, None, None, None
