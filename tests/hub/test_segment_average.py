import math

import pytest
import torch
from torch import nn

from hub.segment import Replay, Tuning, UpperSegment, average

ONE = torch.ones(1, 1)
FIRST, SECOND = torch.tensor([0]), torch.tensor([1])


def two_weights(*, masks=False):
    """Logits θ·a for a single number a, with U = (2, 2)."""
    module = nn.Linear(1, 2, bias=False)
    nn.init.constant_(module.weight, 2.0)
    return UpperSegment(module, 2, Tuning(lr=0.1, weight_decay=0.0, masks=masks), seed=0)


def noisy(seed):
    """A segment with everything that changes: weights, statistics, dropout."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    return UpperSegment(module, 1, Tuning(lr=0.1), seed)


def batch(number):
    generator = torch.Generator().manual_seed(number)
    return torch.randn(6, 3, generator=generator), torch.randint(0, 2, (6,), generator=generator)


def moments(segment):
    (state,) = segment.optimizer.state_dict()["state"].values()
    return state


def test_weights_and_moments_worked_by_hand():
    one, other = two_weights(), two_weights()
    one.step(0, ONE, FIRST)  # gradient (-1/2, 1/2): Adam's first step is lr against its sign
    other.step(0, ONE, SECOND)
    average([one, other], [0.75, 0.25])
    for segment in (one, other):
        assert segment.weights.tolist() == pytest.approx([2.05, 1.95])
        assert moments(segment)["exp_avg"].tolist() == pytest.approx([-0.025, 0.025])
        assert moments(segment)["exp_avg_sq"].tolist() == pytest.approx([0.00025, 0.00025])
        assert float(moments(segment)["step"]) == 1
        assert segment.predict(0, ONE)[0].tolist() == pytest.approx([2.05, 1.95])


def test_the_mean_of_one_is_itself_bit_by_bit():
    alone, averaged = noisy(0), noisy(0)
    for number in range(4):
        alone.step(0, *batch(number))
        averaged.step(0, *batch(number))
        average([averaged], [1.0])
    assert torch.equal(alone.weights, averaged.weights)
    assert torch.equal(alone.predict(0, batch(9)[0]), averaged.predict(0, batch(9)[0]))


def test_a_segment_of_weight_zero_receives_everything_and_gives_nothing():
    giving, receiving = noisy(0), noisy(0)
    for number in range(3):
        giving.step(0, *batch(number))
    receiving.weights.fill_(math.nan)
    average([giving, receiving], [1.0, 0.0])
    for number in range(3, 6):  # moments, statistics and the seed of dropout too: they go on alike
        losses = [segment.step(0, *batch(number))[0] for segment in (giving, receiving)]
        assert losses[0] == losses[1]
    assert torch.equal(giving.weights, receiving.weights)


def test_afterwards_each_learns_by_itself():
    one, other = two_weights(), two_weights()
    average([one, other], [0.5, 0.5])
    one.step(0, ONE, FIRST)
    assert other.weights.tolist() == [2.0, 2.0]
    assert one.weights.tolist() == pytest.approx([2.1, 1.9])


def test_who_has_not_learned_yet_counts_as_zero_moments():
    one, fresh = two_weights(), two_weights()
    one.step(0, ONE, FIRST)
    average([one, fresh], [0.5, 0.5])
    assert fresh.weights.tolist() == pytest.approx([2.05, 1.95])
    assert moments(fresh)["exp_avg"].tolist() == pytest.approx([-0.025, 0.025])


def test_statistics_are_averaged_and_counters_stay_whole():
    one, other = (
        UpperSegment(nn.Sequential(nn.BatchNorm1d(1, momentum=1.0), nn.Linear(1, 2)), 1, Tuning(), 0) for _ in "ab"
    )
    for _ in range(10):  # nine tenths of ten and a tenth of ten is a little less than ten in binary
        one.step(0, torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))
        other.step(0, torch.tensor([[5.0], [7.0]]), torch.tensor([0, 1]))
    average([one, other], [0.7, 0.3 - 1e-16])
    assert other.module[0].running_mean.tolist() == pytest.approx([2 * 0.7 + 6 * 0.3])
    assert other.module[0].num_batches_tracked.tolist() == 10


def test_masks_are_averaged_too():
    one, other = two_weights(masks=True), two_weights(masks=True)
    one.logits.fill_(1.0)
    other.logits.fill_(3.0)
    average([one, other], [0.5, 0.5])
    assert one.logits.tolist() == other.logits.tolist() == [[2.0, 2.0], [2.0, 2.0]]


def test_an_averaged_segment_can_be_stored_before_its_first_step():
    one, other = noisy(0), noisy(0)
    average([one, other], [0.5, 0.5])
    resumed = noisy(0)
    resumed.load(one.save())
    assert resumed.step(0, *batch(0)) == one.step(0, *batch(0)) == noisy(0).step(0, *batch(0))


# Learning again ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masks", [True, False])
def test_steps_on_what_was_received_before_mix_devices_only_where_they_share_a_mask(masks):
    segment, replay, seen = two_weights(masks=masks), Replay(10_000), []
    for device in (0, 1):
        replay.add(device, torch.full((4, 1), float(device)), torch.zeros(4, dtype=torch.int64))
    step = segment.step
    segment.step = lambda device, smashed, labels: (
        seen.append((device, set(smashed[:, 0].tolist()))),
        step(device, smashed, labels),
    )
    segment.learn_again(replay, 20)
    assert segment.steps == 20
    assert any(len(devices) == 2 for _, devices in seen) is not masks
    if masks:
        assert dict(seen) == {0: {0.0}, 1: {1.0}}


def test_where_nothing_was_received_nothing_is_learned_again():
    segment = two_weights()
    segment.learn_again(Replay(10_000), 3)
    assert segment.steps == 0
