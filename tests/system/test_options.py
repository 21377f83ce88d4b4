"""Every option of the demo once: a short run that ends well, and the trace the option must leave in its records."""

import pytest

from hub.__main__ import main
from tests.system.trial import read_records

STEPS = 2
"""Of a round: fifty samples are two batches."""
LOWER_BYTES = 4 * 16 * (9 + 1)
"""Of the digits' lower segment: sixteen 3x3 filters with a bias each."""


class Trace:
    """What a run left behind."""

    def __init__(self, folder):
        self.run = read_records(folder, "run")[0]
        self.rounds = read_records(folder, "round")
        self.last = {record["device"]: record for record in read_records(folder, "device")}

    def sent(self):
        return [device["socket_sent"] - device["evaluation_sent"] for device in self.last.values()]

    def received(self):
        return [device["socket_received"] - device["evaluation_received"] for device in self.last.values()]

    def elements(self):
        return [device["elements"] for device in self.last.values()]


def usual(trace):
    assert trace.run["dataset"] == "digits"
    assert trace.run["options"]["masks"] is False
    assert all(0 < down < 2 * STEPS * LOWER_BYTES for down in trace.received()), "no tensor comes down"
    assert all(up > 4 * elements for up, elements in zip(trace.sent(), trace.elements(), strict=True))
    k = max(1, round(trace.run["options"]["eta"] * 3))
    assert sum(trace.rounds[-1]["selected"].values()) == k * STEPS


def split_learning(trace):
    assert trace.run["strategy"] == "split_learning"
    assert trace.rounds[-1]["selected"] == dict.fromkeys(trace.last, STEPS)
    assert all(down > 4 * elements > 0 for down, elements in zip(trace.received(), trace.elements(), strict=True))


def server_gradient(trace):
    pairs = list(zip(trace.received(), trace.elements(), strict=True))
    assert all(down > 4 * elements for down, elements in pairs)
    assert any(elements for _, elements in pairs)


def handover(trace):
    assert all(down > 2 * STEPS * LOWER_BYTES for down in trace.received()), "a lower segment a step"
    assert all(up > 2 * STEPS * LOWER_BYTES for up in trace.sent())


def frozen(trace):
    assert all(device["flops"] == device["paper_flops"] for device in trace.last.values()), "forward and nothing else"


def random(trace):
    assert trace.run["options"]["selection"] == "random"
    usual(trace)


def select_every(trace):
    assert set(trace.rounds[-1]["selected"].values()) == {STEPS}, "who is selected sends in the whole round"


def quantised(trace):
    assert trace.run["codec"] == "quantised:0.5"
    assert sum(trace.sent()) < sum(trace.elements()) + 3 * 3000, "less than a byte an element, where float32 takes four"


def paper(trace):
    options = trace.run["options"]
    assert (options["kappa"], options["eta"], options["gamma"], options["replay"]) == (0.6, 0.6, 0.75, 0)
    assert options["masks"] is True
    assert [record["phase"] for record in trace.rounds] == ["local", "global"]


def new_wearers(trace):
    idle = {name for name, device in trace.last.items() if device["flops"] == 0}
    assert len(idle) == 2
    assert len(trace.last) == 5
    assert set(trace.rounds[-1]["accuracies"]) == set(trace.last), "those who do not train are tested all the same"
    trained = [share for name, share in trace.rounds[-1]["accuracies"].items() if name not in idle]
    assert trace.rounds[-1]["accuracy"] == pytest.approx(sum(trained) / 3), "the mean is over those who trained"


CASES = {
    usual: [],
    split_learning: ["--strategy", "split_learning"],
    server_gradient: ["--set", "server_gradient=true"],
    handover: ["--set", "handover=true"],
    frozen: ["--set", "frozen=true"],
    random: ["--set", 'selection="random"'],
    select_every: ["--set", "select_every=3"],
    quantised: ["--codec", "quantised:0.5"],
    paper: ["--mode", "paper"],
    new_wearers: ["--new-wearers", "2"],
}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.__name__)
def test_option(call, tmp_path, make_bundle, case):
    wearables = case is new_wearers
    bundle = make_bundle(
        model="Wearable" if wearables else "Digits",
        classes=7 if wearables else 10,
        objective="gradient" if case is split_learning else "contrastive",
    )
    everywhere = [] if case in (paper, split_learning) else ["--set", "kappa=0"]
    answer = call(
        main, "demo", *CASES[case], *everywhere, "--dataset", "wearables" if wearables else "digits",
        "--devices", "3", "--rounds", "2", "--bundle", bundle.device.parent, "--no-references", "--out", tmp_path / "run",
    )  # fmt: skip
    assert (answer.code, answer.stderr) == (0, "")
    trace = Trace(tmp_path / "run")
    assert [record["round"] for record in trace.rounds] == [1, 2]
    assert [record["late"] for record in trace.rounds] == [[], []]
    assert 0 <= trace.rounds[-1]["accuracy"] <= 1
    case(trace)
