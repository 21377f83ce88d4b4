import numpy as np
import pytest
import torch
from torch import nn

from hub.reference import Curve, Training, centralised, local_only


def share(samples, tests=10, *, flip=False, seed=0):
    """Points to the left and right of 0; a device with `flip` names the sides the other way round."""
    rng = np.random.default_rng([seed, samples])
    x = rng.choice([-1.0, 1.0], (samples + tests, 1)).astype(np.float32) * rng.uniform(1, 2, (samples + tests, 1))
    x = x.astype(np.float32)
    y = ((x[:, 0] > 0) ^ flip).astype(np.int64)
    return x[:samples], y[:samples], x[samples:], y[samples:]


def model():
    return nn.Linear(1, 2)


FAST = Training(rounds=20, batch=8, lr=0.1)


def test_alone_devices_that_contradict_each_other_both_learn():
    shares = {"a": share(16), "b": share(16, flip=True)}
    alone, together = local_only(model, shares, FAST), centralised(model, shares, FAST)
    assert alone.last == 1.0
    assert alone.accuracies[-1] == {"a": 1.0, "b": 1.0}
    assert together.last < 0.8


def test_together_devices_that_agree_all_learn():
    assert centralised(model, {"a": share(16), "b": share(8)}, FAST).last == 1.0


def test_the_mean_is_unweighted_and_the_maximum_over_rounds():
    curve = Curve(({"a": 1.0, "b": 0.5}, {"a": 0.25, "b": 0.25}))
    assert curve.means == [0.75, 0.25]
    assert (curve.last, curve.max) == (0.25, 0.75)


@pytest.mark.parametrize("reference", [local_only, centralised])
def test_the_same_seed_gives_the_same_curve(reference):
    def accuracies(seed):
        return reference(model, {"a": share(9), "b": share(4)}, Training(rounds=2, batch=4, seed=seed)).accuracies

    assert accuracies(1) == accuracies(1)
    assert len({str(accuracies(seed)) for seed in range(5)}) > 1


def test_the_random_numbers_of_the_process_are_left_alone():
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    local_only(model, {"a": share(9)}, Training(rounds=2))
    assert torch.equal(torch.rand(1), expected)


class Counter(nn.Module):
    """Counts the samples and batches it is trained on."""

    def __init__(self, log):
        super().__init__()
        self.linear = nn.Linear(1, 2)
        self.log = log

    def forward(self, x):
        if self.training:
            self.log.append(len(x))
        return self.linear(x)


def test_a_small_device_recycles_its_samples_up_to_the_round_of_the_largest():
    log = []
    local_only(lambda: Counter(log), {"a": share(10), "b": share(3)}, Training(rounds=1, batch=4))
    assert log == [4, 4, 2, 3, 3, 3]  # a's epoch; then b's one batch three times


def test_a_central_round_is_an_epoch_of_everything():
    log = []
    centralised(lambda: Counter(log), {"a": share(10), "b": share(3)}, Training(rounds=2, batch=4))
    assert log == [4, 4, 4, 1] * 2


def test_tests_are_as_often_as_asked_and_always_last():
    curve = local_only(model, {"a": share(8)}, Training(rounds=5, evaluate_every=2))
    assert len(curve.accuracies) == 3


def test_devices_that_cannot_be_trained_or_tested_are_left_out():
    shares = {"a": share(8), "new": share(0), "blind": share(8, tests=0)}
    assert list(local_only(model, shares, Training(rounds=1)).accuracies[0]) == ["a"]
    with pytest.raises(ValueError, match="none of the 1 devices has training and test samples"):
        centralised(model, {"new": share(0)}, Training(rounds=1))
