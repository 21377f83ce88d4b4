import math

import pytest
import torch
from torch import nn

from export.heads import Place, Projection, channels_last
from export.objectives import OBJECTIVES, Given, nt_xent


def by_the_formula(z, y, temperature):
    """The loss pair by pair, as the paper has it."""
    unit = z / z.norm(dim=1, keepdim=True)
    s = (unit @ unit.t() / temperature).tolist()
    losses = []
    for q in range(len(y)):
        others = sum(math.exp(s[q][n]) for n in range(len(y)) if y[n] != y[q])
        losses += [
            -math.log(math.exp(s[q][p]) / (math.exp(s[q][p]) + others))
            for p in range(len(y))
            if p != q and y[p] == y[q]
        ]
    return sum(losses) / len(losses)


def test_by_hand():
    # Anchor 0 and 1 agree (cosine 1), 2 is orthogonal to both: each of the two pairs costs log(1 + e^0 / e^1).
    z, y = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0, 1])
    assert nt_xent(z, y, 1.0).item() == pytest.approx(math.log(1 + math.exp(-1)), rel=1e-6)


def test_against_the_formula():
    torch.manual_seed(0)
    z, y = torch.randn(9, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2, 0, 0, 1])
    assert nt_xent(z, y, 0.07).item() == pytest.approx(by_the_formula(z, y, 0.07), rel=1e-9)


@pytest.mark.parametrize("y", [[0, 1, 2, 3], [5, 5, 5, 5], [0]])
def test_no_pair_or_no_negative_is_zero_with_zero_gradient(y):
    z = torch.randn(len(y), 6, requires_grad=True)
    loss = nt_xent(z, torch.tensor(y), 0.07)
    loss.backward()
    assert loss.item() == 0.0
    assert torch.equal(z.grad, torch.zeros_like(z))


def test_extremes_stay_finite():
    z = torch.tensor([[1.0, 0.0], [-1.0, 1e-4], [1.0, 1e-6], [-1.0, 0.0]], requires_grad=True)
    loss = nt_xent(z, torch.tensor([0, 0, 1, 1]), 0.001)
    loss.backward()
    assert loss.item() == pytest.approx(2000, rel=1e-3)
    assert z.grad.isfinite().all()


def test_projection_is_convolution_activation_maximum_linear():
    torch.manual_seed(0)
    head, smashed = Projection(6, channels_last=False), torch.randn(4, 6, 5, 3)
    plain = nn.functional.leaky_relu(nn.functional.conv2d(smashed, head.mix.weight[..., None], head.mix.bias), 0.01)
    assert torch.allclose(head(smashed), head.out(plain.amax((2, 3))), atol=1e-6)
    assert head(smashed).shape == (4, 64)


def test_projection_of_a_sequence_mixes_features():
    head = Projection(8, channels_last=True)
    turned = Projection(8, channels_last=False)
    turned.load_state_dict(head.state_dict())
    smashed = torch.randn(4, 11, 8)
    assert torch.equal(head(smashed), turned(smashed.transpose(1, 2)))


def test_which_dimension_holds_the_features():
    assert not channels_last(nn.Sequential(nn.Conv1d(3, 4, 3), nn.ReLU()))
    assert channels_last(nn.Sequential(nn.Embedding(5, 4), nn.LayerNorm(4)))


def test_head_of_vectors():
    head = OBJECTIVES["contrastive"].head(Place((4,), True, (30,), False, 3))
    assert [tuple(weight.shape) for weight in head.parameters()] == [(256, 30), (256,), (64, 256), (64,)]


def test_sparsity_and_local_weight():
    smashed = torch.tensor([[1.0, -2.0], [0.5, 0.0]])
    setting = {"temperature": torch.tensor(0.07), "beta": torch.tensor(0.1), "local_weight": torch.tensor(3.0)}
    down = torch.tensor([[1.0, 1.0], [2.0, 2.0]])
    y = torch.tensor([0, 1])
    local, _ = OBJECTIVES["contrastive"].loss(Given(smashed, y, smashed, None, nn.Identity(), setting))
    both, metrics = OBJECTIVES["contrastive"].loss(Given(smashed, y, smashed, down, nn.Identity(), setting))
    assert local.item() == pytest.approx(0.1 * 3.5)
    assert both.item() == pytest.approx((1 - 2 + 1) + 3.0 * 0.1 * 3.5)
    assert metrics["contrastive"].item() == 0.0
