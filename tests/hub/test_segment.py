import io

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from hub.segment import Replay, Tuning, UpperSegment


def two_weights(*, masks: bool, mask_weight: float = 1e-3) -> UpperSegment:
    """Logits θ·a for a single number a; U = (2, 2) and, with masks, every V = 0."""
    module = nn.Linear(1, 2, bias=False)
    nn.init.constant_(module.weight, 2.0)
    segment = UpperSegment(module, 2, Tuning(lr=0.1, weight_decay=0.0, masks=masks, mask_weight=mask_weight), seed=0)
    if segment.logits is not None:
        segment.logits.zero_()
    return segment


ONE, FIRST_CLASS = torch.ones(1, 1), torch.tensor([0])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(3, 4, 3)
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(4, 2)

    def forward(self, x):
        return self.out(self.drop(self.norm(self.conv(x)).relu().mean(2)))


def net_and_batches(count=4):
    torch.manual_seed(0)
    return Net(), [(torch.randn(5, 3, 8), torch.randint(0, 2, (5,))) for _ in range(count)]


def stored(saved):
    """What comes back from a checkpoint's file."""
    file = io.BytesIO()
    torch.save(saved, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def test_gradients_of_masks_worked_by_hand():
    segment = two_weights(masks=True)
    # The sigmoid of 0 is 1/2: θ = (1, 1), softmax = (1/2, 1/2), dCE/dθ = (-1/2, 1/2).
    loss, _ = segment.accumulate(0, ONE, FIRST_CLASS)
    assert loss == pytest.approx(np.log(2))
    assert segment.weights.grad.tolist() == [-0.25, 0.25]
    assert segment.logits.grad.tolist() == [[-0.25, 0.25], [0.0, 0.0]]


def test_the_price_of_masks_moves_every_device_and_the_batch_only_its_own():
    segment = two_weights(masks=True)
    segment.step(0, ONE, FIRST_CLASS)
    # Adam's first step is lr against the sign of the gradient; λ times the sigmoid's slope, 0.00025, is positive for every mask.
    assert segment.weights.tolist() == pytest.approx([2.1, 1.9])
    assert segment.logits.flatten().tolist() == pytest.approx([0.1, -0.1, -0.1, -0.1], abs=1e-5)


def test_without_a_price_the_masks_of_the_others_stay():
    segment = two_weights(masks=True, mask_weight=0.0)
    segment.step(0, ONE, FIRST_CLASS)
    assert segment.logits[1].tolist() == [0.0, 0.0]


def test_masked_steps_are_those_of_autograd_over_all_masks():
    torch.manual_seed(1)
    module = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    segment = UpperSegment(module, 3, Tuning(masks=True, mask_weight=0.01, weight_decay=0.1), seed=0)
    names = [name for name, _ in module.named_parameters()]
    weights = {name: p.detach().clone().requires_grad_() for name, p in module.named_parameters()}
    sizes = [p.numel() for p in weights.values()]
    masks = {
        name: part.reshape(3, *weights[name].shape).clone().requires_grad_()
        for name, part in zip(names, segment.logits.split(sizes, dim=1), strict=True)
    }
    adam = torch.optim.Adam([*weights.values(), *masks.values()], lr=1e-3, weight_decay=0.1)
    for step in range(6):
        x, y = torch.randn(8, 3), torch.randint(0, 2, (8,))
        segment.step(step % 2, x, y)
        served = {name: weights[name] * torch.sigmoid(masks[name][step % 2]) for name in names}
        loss = functional.cross_entropy(torch.func.functional_call(module, served, x), y)
        adam.zero_grad()
        (loss + 0.01 * sum(torch.sigmoid(mask).sum() for mask in masks.values())).backward()
        adam.step()
    torch.testing.assert_close(segment.weights, torch.cat([w.detach().flatten() for w in weights.values()]))
    torch.testing.assert_close(segment.logits, torch.cat([m.detach().flatten(1) for m in masks.values()], dim=1))


def test_masks_start_from_the_seed_with_the_normal_distribution():
    module = nn.Linear(100, 100)
    logits = [UpperSegment(module, 2, Tuning(masks=True), seed).logits for seed in (0, 0, 1)]
    assert torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])
    assert logits[0].mean().abs() < 0.03
    assert logits[0].std() == pytest.approx(1, abs=0.03)


def test_prediction_goes_through_the_mask_of_the_device_and_for_strangers_through_their_mean():
    segment = two_weights(masks=True)
    segment.logits[0], segment.logits[1] = 100.0, -100.0
    assert segment.predict(0, ONE).tolist() == [[2.0, 2.0]]
    assert segment.predict(1, ONE)[0].tolist() == pytest.approx([0.0, 0.0])
    assert segment.predict(None, ONE).tolist() == [[1.0, 1.0]]


def test_the_template_is_left_alone():
    module, batches = net_and_batches()
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    segment = UpperSegment(module, 1, Tuning(), 0)
    segment.step(0, *batches[0])
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_the_gradient_of_the_smashed_data_is_that_of_the_loss():
    segment = two_weights(masks=False)
    loss, gradient = segment.accumulate(0, torch.ones(1, 1), FIRST_CLASS, gradient=True)
    assert loss == pytest.approx(np.log(2))
    assert gradient.tolist() == [[0.0]]  # both weights are 2: (-1/2)·2 + (1/2)·2
    segment.weights[0] = 0.0
    _, gradient = segment.accumulate(0, torch.zeros(1, 1), FIRST_CLASS, gradient=True)
    assert gradient.tolist() == [[1.0]]  # (-1/2)·0 + (1/2)·2
    assert segment.accumulate(0, ONE, FIRST_CLASS)[1] is None


def test_gathered_batches_make_one_step_on_their_weighted_sum():
    apart, together = two_weights(masks=False), two_weights(masks=False)
    for label, weight in ((0, 0.25), (1, 0.75)):
        apart.accumulate(0, ONE, torch.tensor([label]), weight=weight)
    together.accumulate(0, torch.ones(4, 1), torch.tensor([0, 1, 1, 1]))
    assert apart.weights.grad.tolist() == pytest.approx(together.weights.grad.tolist())
    apart.apply()
    assert apart.steps == 1
    assert apart.weights.grad.tolist() == [0.0, 0.0]


def test_gathered_batches_have_dropout_noise_of_their_own_again_from_the_seed():
    module, batches = net_and_batches(1)
    runs = []
    for _ in range(2):
        segment = UpperSegment(module, 1, Tuning(lr=0.0), 0)
        losses = [segment.accumulate(0, *batches[0])[0] for _ in range(2)]
        segment.apply()
        runs.append([*losses, segment.step(0, *batches[0])[0]])
    assert runs[0] == runs[1]
    assert len(set(runs[0])) == 3


def test_batch_norm_learns_its_statistics_in_steps_and_uses_them_in_prediction():
    module = nn.Sequential(nn.BatchNorm1d(1, momentum=1.0), nn.Linear(1, 2))
    segment = UpperSegment(module, 1, Tuning(), 0)
    segment.step(0, torch.tensor([[1.0], [3.0]]), torch.tensor([0, 1]))
    norm = segment.module[0]
    assert norm.running_mean.tolist() == [2.0]
    assert norm.running_var.tolist() == [2.0]
    segment.predict(0, torch.tensor([[100.0]]))
    assert norm.running_mean.tolist() == [2.0]


def test_batch_norm_takes_a_batch_of_one_sample():
    segment = UpperSegment(nn.Sequential(nn.BatchNorm1d(1), nn.Linear(1, 2)), 1, Tuning(), 0)
    loss, _ = segment.step(0, ONE, FIRST_CLASS)
    assert np.isfinite(loss)
    assert segment.module[0].running_mean.tolist() == [0.0]


@pytest.mark.parametrize("masks", [False, True])
def test_a_run_that_was_stored_goes_on_bit_by_bit(masks):
    module, batches = net_and_batches()
    straight = UpperSegment(module, 2, Tuning(masks=masks), 3)
    for device, batch in enumerate(batches):
        straight.step(device % 2, *batch)
    stopped = UpperSegment(module, 2, Tuning(masks=masks), 3)
    for device, batch in enumerate(batches[:2]):
        stopped.step(device % 2, *batch)
    resumed = UpperSegment(module, 2, Tuning(masks=masks), 3)
    resumed.load(stored(stopped.save()))
    torch.manual_seed(99)  # the process's own chance plays no part
    for device, batch in enumerate(batches[2:]):
        resumed.step(device % 2, *batch)
    x = batches[0][0]
    assert torch.equal(straight.weights, resumed.weights)
    assert torch.equal(straight.predict(1, x), resumed.predict(1, x))
    assert resumed.steps == 4


def test_steps_leave_the_random_numbers_of_the_process_alone():
    module, batches = net_and_batches()
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    UpperSegment(module, 1, Tuning(masks=True), 0).step(0, *batches[0])
    assert torch.equal(torch.rand(1), expected)


def test_a_checkpoint_of_another_fleet_is_refused():
    saved = UpperSegment(nn.Linear(1, 2), 2, Tuning(masks=True), 0).save()
    with pytest.raises(ValueError, match=r"logits have shape \(2, 4\); this upper segment's \(3, 4\)"):
        UpperSegment(nn.Linear(1, 2), 3, Tuning(masks=True), 0).load(saved)
    with pytest.raises(ValueError, match=r"weights have shape \(4,\); this upper segment's \(6,\)"):
        UpperSegment(nn.Linear(2, 2), 2, Tuning(masks=True), 0).load(saved)


# What was received before -----------------------------------------------------------------------------------------


def numbered(*values):
    """Samples of 4 bytes, 20 with label and device, that carry their own number."""
    return torch.tensor(values, dtype=torch.float32)[:, None], torch.tensor(values)


def kept(replay):
    """All samples, as numbers."""
    _, _, labels = replay.draw(np.random.default_rng(0), one_device=False)
    return sorted(labels.tolist())


def test_replay_stays_within_its_bytes_and_forgets_the_oldest_first():
    replay = Replay(maximum_bytes=20 * 4 + 19)
    replay.add(0, *numbered(1, 2, 3))
    assert len(replay) == 3
    replay.add(1, *numbered(4, 5, 6))
    assert len(replay) == 4
    drawn = {n for seed in range(50) for n in replay.draw(np.random.default_rng(seed), one_device=False)[2].tolist()}
    assert drawn == {3, 4, 5, 6}


def test_a_batch_larger_than_the_memory_leaves_its_end():
    replay = Replay(maximum_bytes=40)
    replay.add(0, *numbered(1, 2, 3, 4, 5))
    assert len(replay) == 2
    assert kept(replay) == [4, 5]


def test_a_memory_too_small_for_a_sample_keeps_none():
    replay = Replay(maximum_bytes=19)
    replay.add(0, *numbered(1))
    assert len(replay) == 0
    with pytest.raises(IndexError, match="nothing was received yet"):
        replay.draw(np.random.default_rng(0), one_device=False)


def test_a_replayed_batch_is_as_large_as_the_largest_and_repeats_nothing():
    replay = Replay(maximum_bytes=1000)
    replay.add(0, *numbered(1, 2, 3, 4))
    replay.add(1, *numbered(5, 6))
    _, smashed, labels = replay.draw(np.random.default_rng(1), one_device=False)
    assert len(set(labels.tolist())) == 4
    assert smashed[:, 0].tolist() == labels.tolist()


def test_for_masks_a_batch_is_of_one_device():
    replay = Replay(maximum_bytes=1000)
    replay.add(7, *numbered(1, 2, 3))
    replay.add(9, *numbered(4))
    found = {}
    for seed in range(30):
        device, _, labels = replay.draw(np.random.default_rng(seed), one_device=True)
        found[device] = sorted(labels.tolist())
    assert found == {7: [1, 2, 3], 9: [4]}


def test_replay_that_was_stored_goes_on_the_same_way():
    one = Replay(maximum_bytes=100)
    one.add(0, *numbered(1, 2, 3))
    other = Replay(maximum_bytes=100)
    other.load(stored(one.save()))
    for replay in (one, other):
        replay.add(1, *numbered(4, 5, 6))
    for seed in range(5):
        left, right = (replay.draw(np.random.default_rng(seed), one_device=False) for replay in (one, other))
        assert left[2].tolist() == right[2].tolist()
