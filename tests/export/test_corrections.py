"""Rounds of the federated methods on exported graphs, carried out as a device does, against autograd in float64."""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812  the name everybody reads
from torch import nn

from edge import bundle
from edge.segment import Segment
from export.bundle import BuildSpec, build
from hub.strategies.base import Fleet, Member
from hub.strategies.fedavg import FedAvg, FedAvgOptions
from hub.strategies.fednova import FedNova, FedNovaOptions
from hub.strategies.fedprox import FedProx, FedProxOptions
from hub.strategies.scaffold import Scaffold, ScaffoldOptions

FLEET = Fleet((Member("a", 20, 3), Member("b", 40, 5)))
NOBODYS = np.random.default_rng(0)
"""These graphs draw no noise."""


def tiny():
    """Weights and running statistics, in a layout that is not that of one tensor."""
    return nn.Sequential(nn.Linear(3, 6), nn.BatchNorm1d(6), nn.Tanh(), nn.Linear(6, 4))


def batches(name, count):
    chance = torch.Generator().manual_seed(ord(name))
    return [(torch.randn(8, 3, generator=chance), torch.randint(0, 4, (8,), generator=chance)) for _ in range(count)]


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Paths of bundles by objective and optimizer, each built when first asked for."""
    found = {}

    def get(objective, optimizer):
        if (objective, optimizer) not in found:
            spec = BuildSpec(f"{__name__}:tiny", objective=objective, optimizer=optimizer, input_shape=(3,), seed=3)
            folder = tmp_path_factory.mktemp(f"{objective}-{optimizer}")
            found[objective, optimizer] = build(spec, folder, checked=False).device
        return found[objective, optimizer]

    return get


class Board:
    """What `edge.agent` does with a local order, without the wire."""

    def __init__(self, path, name):
        self.name, self.segment = name, Segment(bundle.load(path))

    def carry_out(self, order):
        self.segment.load(order.state or {})
        self.segment.run("begin", {}, order.settings, NOBODYS)
        for x, y in batches(self.name, order.steps):
            inputs = {"batch.x": x.numpy(), "batch.y": y.numpy()}
            self.segment.run("local", inputs, order.settings, NOBODYS, up=False)
        given = self.segment.tensors(order.give)
        if "end" in self.segment.kinds:
            given |= self.segment.run("end", {}, order.settings, NOBODYS).up
        return {name: np.array(array) for name, array in given.items()}

    @property
    def own(self):
        return self.segment.snapshot()["own"]


def play(strategy, state, boards, number):
    """One round in which all come; returns the state and what they gave in the last turn."""
    turn, given = 0, {}
    while (orders := strategy.turn(state, number, turn, FLEET.names)[1]) is not None:
        given = {name: boards[name].carry_out(order) for name, order in orders.items()}
        state = strategy.settle(state, number, turn, {}, given)
        turn += 1
    return strategy.end_round(state, number), given


def start(built, strategy):
    path = built(strategy.objective, strategy.optimizer)
    boards = {name: Board(path, name) for name in FLEET.names}
    return strategy.init(FLEET, nn.Identity(), rounds=3, seed=0), boards


def first_model():
    torch.manual_seed(3)
    return tiny().double()


def flat(model):
    return torch.cat([parameter.detach().reshape(-1) for parameter in model.parameters()])


def loss_of(model, x, y):
    return F.cross_entropy(model(x.double()), y)


def averaged(models):
    """The mean by samples, running statistics included."""
    result = copy.deepcopy(models["a"])
    named = {name: model.state_dict() for name, model in models.items()}
    result.load_state_dict({key: named["a"][key] / 3 + named["b"][key] * (2 / 3) for key in named["a"]})
    return result


def assert_same(weights, model, tolerance=2e-5):
    for name, wanted in model.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            np.testing.assert_allclose(weights[name], wanted.numpy(), rtol=tolerance, atol=tolerance, err_msg=name)


OPTIMIZERS = {
    "sgd": lambda weights: torch.optim.SGD(weights, lr=0.1, momentum=0.5, weight_decay=0.01),
    "adam": lambda weights: torch.optim.Adam(weights, lr=0.01, weight_decay=0.01),
}
OPTIONS = {
    "sgd": {"optimizer": "sgd", "lr": 0.1, "momentum": 0.5, "weight_decay": 0.01},
    "adam": {"optimizer": "adam", "lr": 0.01, "weight_decay": 0.01},
}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("mu", [None, 0.7])
def test_rounds_of_fedavg_and_fedprox_are_those_of_autograd(built, optimizer, mu):
    strategy = (
        FedAvg(FedAvgOptions(**OPTIONS[optimizer]))
        if mu is None
        else FedProx(FedProxOptions(mu=mu, **OPTIONS[optimizer]))
    )
    state, boards = start(built, strategy)
    model = first_model()
    for number in range(3):
        state, given = play(strategy, state, boards, number)
        trained = {}
        for member in FLEET.members:
            trained[member.name] = local = copy.deepcopy(model)
            step = OPTIMIZERS[optimizer](local.parameters())  # its moments start anew
            for x, y in batches(member.name, member.batches):
                way = sum(
                    ((w - v.detach()) ** 2).sum() for w, v in zip(local.parameters(), model.parameters(), strict=True)
                )
                step.zero_grad()
                (loss_of(local, x, y) + (mu or 0.0) / 2 * way).backward()
                step.step()
            assert_same(given[member.name], local)
        model = averaged(trained)
        assert_same(state.weights, model)


def test_fedprox_without_its_term_is_fedavg_to_the_last_bit(built):
    ends = []
    for strategy in (FedAvg(FedAvgOptions()), FedProx(FedProxOptions(mu=0.0))):
        state, boards = start(built, strategy)
        for number in range(2):
            state, _ = play(strategy, state, boards, number)
        ends.append({name: array.tobytes() for name, array in state.weights.items()})
    assert ends[0] == ends[1]


def scaffold_by_hand(model, c, own, data, lr):
    """Option II on one device: y, and its next control."""
    y, steps = copy.deepcopy(model), len(data)
    for x, labels in data:
        y.zero_grad()
        loss_of(y, x, labels).backward()
        offset = 0
        with torch.no_grad():
            for parameter in y.parameters():
                part = slice(offset, offset + parameter.numel())
                parameter.sub_(lr * (parameter.grad + (c - own)[part].view(parameter.shape)))
                offset += parameter.numel()
    return y, own - c + (flat(model) - flat(y)) / (steps * lr)


@pytest.mark.parametrize("lr_global", [1.0, 0.5])
def test_rounds_of_scaffold_follow_option_two(built, lr_global):
    lr = 0.1
    strategy = Scaffold(ScaffoldOptions(lr=lr, lr_global=lr_global, weight_decay=0.0))
    state, boards = start(built, strategy)
    model = first_model()
    c = torch.zeros_like(flat(model))
    controls = dict.fromkeys(FLEET.names, c)
    for number in range(3):
        before = {name: board.own for name, board in boards.items()}
        state, given = play(strategy, state, boards, number)
        ys = {}
        for member in FLEET.members:
            name = member.name
            ys[name], after = scaffold_by_hand(model, c, controls[name], batches(name, member.batches), lr)
            change = (after - controls[name]).numpy()
            np.testing.assert_allclose(given[name]["change"], change, rtol=2e-4, atol=2e-5)
            np.testing.assert_allclose(boards[name].own, after.numpy(), rtol=2e-4, atol=2e-5)
            assert (before[name] + given[name]["change"]).tobytes() == boards[name].own.tobytes()
            assert state.controls[name].tobytes() == boards[name].own.tobytes()  # the hub knows it to the last bit
            controls[name] = after
        c = (controls["a"] + controls["b"]) / 2
        statistics = {name: dict(y.named_buffers()) for name, y in ys.items()}
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                mean = sum(y.get_parameter(name) for y in ys.values()) / 2
                parameter.add_(lr_global * (mean - parameter))
            for name, buffer in model.named_buffers():
                buffer.copy_((statistics["a"][name] + statistics["b"][name]) / 2)
        assert_same(state.weights, model, 5e-5)


def test_asking_a_device_for_its_weights_leaves_it_as_it_is(built):
    strategy = Scaffold(ScaffoldOptions(lr_global=0.5))
    state, boards = start(built, strategy)
    before = boards["a"].segment.snapshot()
    _, orders = strategy.turn(state, 0, 0, FLEET.names)
    given = boards["a"].carry_out(orders["a"])
    assert not given["change"].any()
    after = boards["a"].segment.snapshot()
    assert {name for name in before if before[name].tobytes() != after[name].tobytes()} == {"anchor"}


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_rounds_of_fednova_sum_normalised_gradients(built, momentum):
    lr = 0.05
    strategy = FedNova(FedNovaOptions(lr=lr, momentum=momentum, weight_decay=0.0))
    state, boards = start(built, strategy)
    model = first_model()
    for number in range(2):
        state, _ = play(strategy, state, boards, number)
        effective, direction, statistics = 0.0, torch.zeros_like(flat(model)), {}
        for member, p in zip(FLEET.members, (1 / 3, 2 / 3), strict=True):
            local = copy.deepcopy(model)
            step = torch.optim.SGD(local.parameters(), lr=lr, momentum=momentum)
            gradients = []
            for x, y in batches(member.name, member.batches):
                step.zero_grad()
                loss_of(local, x, y).backward()
                gradients.append(torch.cat([parameter.grad.reshape(-1) for parameter in local.parameters()]))
                step.step()
            # Gradient k of τ is in this step and, weaker by the momentum each time, in those that follow.
            counts = [sum(momentum**later for later in range(len(gradients) - k)) for k in range(len(gradients))]
            direction += p * sum(n * g for n, g in zip(counts, gradients, strict=True)) / sum(counts)
            effective += p * sum(counts)
            statistics[member.name] = local
        wanted = averaged(statistics)
        moved = flat(model) - lr * effective * direction
        nn.utils.vector_to_parameters(moved, wanted.parameters())
        model = wanted
        assert_same(state.weights, model, 5e-5)
