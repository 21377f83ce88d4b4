import numpy as np
import pytest
import torch

from export.optimizers import OPTIMIZERS


def exact(number):
    return float(np.float32(number))


SETTINGS = {
    "sgd": {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01},
    "adam": {"lr": 0.01, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.1},
    "adamw": {"lr": 0.01, "beta1": 0.8, "beta2": 0.99, "eps": 1e-6, "weight_decay": 0.1},
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_are_those_of_torch(name):
    rule = OPTIMIZERS[name]
    chance = torch.Generator().manual_seed(0)
    setting = {key: exact(value) for key, value in SETTINGS[name].items()}
    start = torch.randn(7, generator=chance, dtype=torch.float64)
    weight = torch.nn.Parameter(start.clone())
    optimizer = rule.reference([weight], setting)
    state = {"weights": start, **{moment: torch.zeros_like(start) for moment in rule.moments}}
    if rule.counts:
        state["steps"] = torch.zeros(())
    tensors = {key: torch.tensor(value, dtype=torch.float64) for key, value in setting.items()}
    for _ in range(10):
        gradient = torch.randn(7, generator=chance, dtype=torch.float64)
        weight.grad = gradient.clone()
        optimizer.step()
        state = rule.update(state, gradient, tensors)
    assert torch.allclose(state["weights"], weight.detach(), rtol=1e-12, atol=0)
    for moment, torch_name in rule.moments.items():
        assert torch.allclose(state[moment], optimizer.state[weight][torch_name], rtol=1e-12, atol=0)


@pytest.mark.parametrize("name", ["adam", "adamw"])
def test_a_gradient_of_zero_moves_nothing_but_the_decay(name):
    setting = {key: torch.tensor(entry.default) for key, entry in OPTIMIZERS[name].settings.items()}
    setting["weight_decay"] = torch.tensor(0.0)
    zeros, ones = torch.zeros(3), torch.ones(3)
    state = {"weights": ones, "moment1": zeros, "moment2": zeros, "steps": torch.zeros(())}
    after = OPTIMIZERS[name].update(state, zeros, setting)
    assert torch.equal(after["weights"], ones)


def test_sgd_by_hand():
    state = {"weights": torch.tensor([1.0]), "momentum": torch.tensor([2.0])}
    setting = {"lr": torch.tensor(0.1), "momentum": torch.tensor(0.5), "weight_decay": torch.tensor(0.1)}
    after = OPTIMIZERS["sgd"].update(state, torch.tensor([3.0]), setting)
    assert after["momentum"].item() == pytest.approx(0.5 * 2 + 3 + 0.1)
    assert after["weights"].item() == pytest.approx(1 - 0.1 * 4.1)
