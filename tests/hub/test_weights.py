"""Weights as differences, at the hub: whose base moves when, what is refused, and whole runs."""

import math
import shutil
from contextlib import closing

import numpy as np
import pytest

from edge.outbox import Outbox
from edge.wire import messages
from edge.wire.frames import WireError
from edge.wire.messages import State
from edge.wire.weights import Base, Difference, difference
from hub import simulate
from hub.demo import Wish
from hub.outcome import read
from hub.strategies import STRATEGIES
from hub.strategies.base import Order, Stand
from hub.terms import Shapes
from hub.weights import Weights, bits_of, finer
from tests.hub.test_orchestrator import Everybody, Field, gathered

TAG = bytes(4)
GIVEN = {"lower": {"b": (1,), "w": (2,), "n.running_mean": (2,)}, "head": {"h": (2,)}, "end": {"change": (3,)}}
START = {"w": [1, 2], "b": [0], "n.running_mean": [5, 5], "h": [7, 7]}


def arrays(**values):
    return {name.replace("__", "."): np.array(value, np.float32) for name, value in values.items()}


def weights(codec="uniform:8", start=None):
    return Weights(codec, Shapes("ab" * 32, (2,), 2, GIVEN, arrays(**(START if start is None else start))))


def order(number=1, give=("lower",), **state):
    state = arrays(**state)
    return messages.Order(TAG, number, 0, "local", 0, 1, (), {}, "float32", 1, 0, state=state, give=give)


def values(told):
    return told.difference.values.tolist()


def settled(hub, *names):
    hub.settle(dict.fromkeys(names), dict.fromkeys(names))


def test_float32_leaves_orders_as_they_are():
    hub = weights("float32")
    asked = order(w=[1, 1], b=[1])
    assert hub.told({"a": asked}) == {"a": asked}
    assert hub.take("a", State(TAG, 1, arrays(w=[1, 1]))) == arrays_like(w=[1, 1])


def arrays_like(**values):
    return Like(arrays(**values))


class Like:
    """Equal to tensors with these numbers."""

    def __init__(self, wanted):
        self.wanted = wanted

    def __eq__(self, found):
        return {k: v.tolist() for k, v in found.items()} == {k: v.tolist() for k, v in self.wanted.items()}

    __hash__ = None


def test_an_order_that_moves_no_weights_says_nothing_of_them():
    hub = weights()
    assert hub.told({"a": order(give=())})["a"] == order(give=())


def test_a_difference_to_what_the_device_began_with():
    told = weights().told({"a": order(w=[1, 257], b=[51], n__running_mean=[1, 2])})["a"]
    # b, then w: 51, 0, 255, in levels of 1; statistics go as they are.
    assert (values(told), told.difference.parts, told.weights) == ([51, 0, 255], ("lower",), "uniform:8")
    assert told.state == arrays_like(n__running_mean=[1, 2])
    assert told.difference.base == Base(arrays(w=[1, 2], b=[0], h=[7, 7])).id


def test_the_base_moves_when_the_device_has_reported_and_not_before():
    hub = weights()
    for reported, wanted in (([], 255), (["a"], 255), ([], 0)):
        told = hub.told({"a": order(give=(), w=[1, 257], b=[0])})["a"]
        assert values(told)[2] == wanted
        settled(hub, *reported)


def test_who_was_asked_for_weights_must_have_given_them():
    hub = weights()
    hub.told({"a": order(w=[1, 257], b=[0])})
    hub.settle({"a": {}}, {})
    assert values(hub.told({"a": order(w=[1, 257], b=[0])})["a"])[2] == 255


def test_what_one_difference_left_out_the_next_one_carries():
    hub, held = weights("topk:0.4"), Base(arrays(w=[1, 2], b=[0], h=[7, 7]))
    parts = {"w": "lower", "b": "lower", "h": "head"}
    came = []
    for number in (1, 2, 3):
        told = hub.told({"a": order(number, give=(), w=[1 + 4, 2 + 3], b=[1])})["a"]
        assert told.difference.base == held.id
        held = held.updated(held.changed(told.difference, parts))
        came.append(held.state["w"].tolist() + held.state["b"].tolist())
        settled(hub, "a")
    # topk of 0.4 keeps two of three.
    assert came == [[5, 5, 0], [5, 5, 1], [5, 5, 1]]


def test_weights_that_come_are_put_together_again():
    hub = weights()
    told = hub.told({"a": order(w=[1, 257], b=[0], n__running_mean=[0, 0])})["a"]
    base = Base(arrays(w=[1, 257], b=[0], h=[7, 7]))
    change = difference(base, ("lower",), np.array([0, 255, 51], np.float32), told.weights)
    exact = arrays(n__running_mean=[3, 4], change=[1, 2, 3])
    found = hub.take("a", State(TAG, 1, exact, difference=change))
    assert found == arrays_like(n__running_mean=[3, 4], change=[1, 2, 3], b=[0], w=[256, 308])


def test_weights_that_come_whole_are_the_base_from_then_on():
    hub = weights()
    hub.told({"a": order()})
    hub.take("a", State(TAG, 1, arrays(w=[9, 9], b=[9])))
    settled(hub, "a")
    told = hub.told({"a": order(2, w=[9, 9], b=[9])})["a"]
    assert (values(told), told.difference.base) == ([0, 0, 0], Base(arrays(w=[9, 9], b=[9])).id)


def test_a_difference_to_another_base_is_refused_in_a_sentence():
    hub = weights()
    base = Base(arrays(w=[1, 2], b=[0], h=[7, 7]))
    change = Difference(5, ("lower",), np.zeros(3, np.float32))
    with pytest.raises(WireError, match="difference to 00000005; they were wanted whole"):
        hub.take("a", State(TAG, 1, {}, difference=change))
    hub.told({"a": order()})
    with pytest.raises(WireError, match=f"difference to 00000005, the base of this order is {base.id:08x}"):
        hub.take("a", State(TAG, 1, {}, difference=change))
    short = Difference(base.id, ("lower",), np.zeros(2, np.float32))
    with pytest.raises(WireError, match="a difference of 2 values; the base"):
        hub.take("a", State(TAG, 1, {}, difference=short))
    right = Difference(base.id, ("lower",), np.zeros(3, np.float32))
    with pytest.raises(WireError, match="weights b, w come twice"):
        hub.take("a", State(TAG, 1, arrays(w=[1, 2], b=[0]), difference=right))


def test_a_device_without_its_base_gets_everything_once():
    hub = weights()
    told = hub.told({"a": order(w=[3, 4], b=[5], n__running_mean=[0, 0])})["a"]
    whole = hub.whole("a", told)
    assert (whole.order, whole.difference, whole.weights) == (1, None, "uniform:8")
    assert whole.state == arrays_like(w=[3, 4], b=[5], n__running_mean=[0, 0])
    assert hub.whole("a", whole) is None
    settled(hub, "a")
    told = hub.told({"a": order(2, w=[3, 4], b=[5])})["a"]
    assert told.difference.base == Base(arrays(w=[3, 4], b=[5])).id


def test_an_evaluation_moves_no_base():
    hub = weights()
    before = hub.told({"a": order(w=[1, 257], b=[0])})["a"]
    hub.settle({}, {})
    evaluated = hub.evaluated("a", order(2, give=(), w=[1, 257], b=[0]))
    assert (values(evaluated), evaluated.weights) == (values(before), "float32")
    settled(hub, "a")
    assert hub.told({"a": order(3, w=[1, 257], b=[0])})["a"].difference.base == before.difference.base


def test_devices_of_one_base_share_what_is_coded_and_what_is_held():
    hub = weights()
    target = {"w": [1, 257], "b": [0]}
    told = hub.told({name: order(place, give=(), **target) for place, name in enumerate("abc")})
    assert told["a"].difference is told["b"].difference
    settled(hub, "a", "b")
    saved = hub.save()
    assert len(saved["bases"]) == 1
    other = weights()
    other.load(saved)
    again = other.told({name: order(place, give=(), **target) for place, name in enumerate("abc")})
    assert [values(again[name]) for name in "abc"] == [[0, 0, 0], [0, 0, 0], [0, 0, 255]]
    assert other.save()["of"] == saved["of"]


def test_without_the_first_weights_the_first_ones_go_whole():
    hub = weights(start={})
    told = hub.told({"a": order(w=[3, 4], b=[5])})["a"]
    assert (told.difference, told.weights) == (None, "uniform:8")
    assert told.state == arrays_like(w=[3, 4], b=[5])
    settled(hub, "a")
    assert values(hub.told({"a": order(2, give=(), w=[3, 4], b=[260])})["a"]) == [255, 0, 0]


def test_who_has_more_to_catch_up_with_gets_a_finer_step():
    assert finer("entropy:1", 2.0) == "entropy:1"
    assert finer("entropy:1", 4.0) == "entropy:0.250000"
    assert finer("quantised:2", 1e9) == "quantised:0.001000"
    assert finer("uniform:8", 100.0) == "uniform:8"


def test_bits_are_never_fewer_than_any_distribution_needs():
    assert [bits_of(codec) for codec in ("float32", "float16", "uniform:8")] == [32, 16, 8]
    rng = np.random.default_rng(0)
    for draw in (rng.normal(size=100_000), rng.laplace(size=100_000), rng.uniform(size=100_000)):
        for k in (0.25, 0.5, 1, 2):
            counts = np.unique(np.rint(draw / (k * draw.std())), return_counts=True)[1] / len(draw)
            entropy = -(counts * np.log2(counts)).sum()
            assert entropy < bits_of(f"entropy:{k}") < entropy + 2


def test_how_many_bytes_weights_take():
    wanted = Order("local", 0, 1, state=arrays(w=[1, 2], b=[3], n__running_mean=[0, 0]), give=("lower",))
    # 3 numbers of a byte and 2 as they are; up also 3 of the end
    assert weights().bytes_of("a", wanted) == (3 + 4 * 2 + 4 * 3, 3 + 4 * 2)
    assert weights("float32").bytes_of("a", wanted) == (4 * 8, 4 * 5)
    assert weights(start={}).bytes_of("a", wanted) == (4 * 8, 4 * 5)
    assert math.isclose(weights("float16").bytes_of("a", Order("local", 0, 1))[0], 0)


# With real devices ------------------------------------------------------------------------------------------------


@pytest.fixture
def field(tmp_path):
    field = Field(tmp_path, ["a", "b"])
    yield field
    for board in field.boards.values():
        board.kill()


LEARNT = {"scale.weight": np.array([3, 7], np.float32)}
TELLING = Order(kind="local", first_step=0, steps=1, settings={"lr": 0.0}, state=LEARNT, give=("lower",))


def board_weights(field, name):
    return field.boards[name].agent._segment.tensors({"lower"})["scale.weight"].tolist()


def test_a_board_that_lost_its_memory_gets_everything_whole_and_the_round_goes_on(field):
    strategy = Everybody(TELLING)
    orchestrator, fleet = gathered(field, strategy, weights_codec="uniform:8")
    for number in (0, 1):
        orchestrator.train([], fleet, number)
    assert {name: state["scale.weight"].tolist() for name, state in strategy.states.items()} == {
        "a": [3, 7],
        "b": [3, 7],
    }
    board = field.boards["a"]
    board.kill()
    shutil.rmtree(field.folder / "a")
    with closing(Outbox.open(field.folder / "a")) as outbox:  # as a new one begins
        outbox.put_fact("stream", {"epoch": 77, "next": 1})
        outbox.commit()
    board.start()
    strategy.order = Order(**{**vars(TELLING), "state": {"scale.weight": np.array([4, 9], np.float32)}})
    _, learned = orchestrator.train([], fleet, 2)
    assert not learned.late
    assert [strategy.states[name]["scale.weight"].tolist() for name in "ab"] == [[4, 9], [4, 9]]
    assert [board_weights(field, name) for name in "ab"] == [[4, 9], [4, 9]]
    assert field.devices.known["a"].refused == {}
    # From here on it is as before.
    _, learned = orchestrator.train([], fleet, 3)
    assert not learned.late


def test_a_device_killed_between_its_weights_and_their_acknowledgement_gives_the_same_once(field):
    strategy = Everybody(Order(kind="local", first_step=0, steps=2, settings={"lr": 0.01}, give=("lower",)))
    orchestrator, fleet = gathered(field, strategy, weights_codec="quantised:2", order="fixed")
    sent = []

    def kill_when_it_has_coded():
        board = field.boards["a"]
        unsent = [messages.unpack(item.message) for item in board.outbox.unsent()]
        states = [message for message in unsent if isinstance(message, State)]
        if states and not sent:
            sent.extend(states)
            board.kill()
            board.start()

    field.events.append(kill_when_it_has_coded)
    for number in range(3):
        orchestrator.train([], fleet, number)
    assert len(sent) == 1
    # a and b have the same samples: nothing shows of the kill.
    assert strategy.states["a"]["scale.weight"].tobytes() == strategy.states["b"]["scale.weight"].tobytes()
    assert field.boards["a"].outbox.received("residual") == field.boards["b"].outbox.received("residual")
    assert isinstance(field.boards["a"].outbox, Outbox)


def test_evaluations_have_the_weights_as_they_are_and_training_goes_on_from_its_base(field):
    strategy = Everybody(TELLING)
    orchestrator, fleet = gathered(field, strategy, weights_codec="uniform:8")
    orchestrator.train([], fleet, 0)
    wrong = {"scale.weight": np.array([-1, -1], np.float32)}
    strategy.stands = {"a": Stand(lower=wrong), "b": Stand(donor="a")}
    assert orchestrator.evaluate([], fleet, 0) == {"a": 0.0, "b": 1.0}
    assert [board_weights(field, name) for name in "ab"] == [[-1, -1], [3, 7]]
    _, learned = orchestrator.train([], fleet, 1)
    assert not learned.late
    assert [board_weights(field, name) for name in "ab"] == [[3, 7], [3, 7]]


def test_a_budget_that_pays_for_the_evaluation_gets_its_weights_coded(field):
    strategy = Everybody(TELLING)
    orchestrator, fleet = gathered(field, strategy, weights_codec="uniform:8", budget={"up_per_run": 1e6})
    orchestrator.train([], fleet, 0)
    # 254 less and 1 more: levels of 1
    strategy.stands = {"a": Stand(lower={"scale.weight": np.array([-251, 8], np.float32)})}
    sent, send = [], field.devices.send
    field.devices.send = lambda name, message, **more: (sent.append((name, message)), send(name, message, **more))
    assert orchestrator.evaluate([], fleet, 2) == {"a": 0.5, "b": 1.0}
    (told,) = [message for name, message in sent if name == "a"]
    assert (told.state, told.weights, told.difference.values.tolist()) == ({}, "float32", [-254, 1])
    assert [board_weights(field, name) for name in "ab"] == [[-251, 8], [3, 7]]


# Whole runs -------------------------------------------------------------------------------------------------------

OPTIONS = {
    "adasplit": {"kappa": 0.0, "handover": True, "select_every": 1},
    "locfedmix": {},
    "one_shot": {"average": True},
    "split_learning": {"turns": "batch"},
}


@pytest.mark.parametrize("codec", ["entropy:1", "uniform:8"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_trains_with_coded_weights(tmp_path, bundles, name, codec):
    options = OPTIONS.get(name, {})
    strategy = STRATEGIES[name](STRATEGIES[name].options(**options))
    last = {}
    for text in ("float32", codec):
        folder = tmp_path / text.replace(":", "-")
        wish = Wish(
            folder, devices=3, rounds=3, dataset="digits", strategy=name, options=options, references=False,
            bundle=bundles(strategy), weights_codec=text,
        )  # fmt: skip
        simulate.run(wish)
        records = list(read(folder))
        assert [record for record in records if record["record"] == "refusal"] == []
        assert all(not record["late"] for record in records if record["record"] == "round")
        devices = [record for record in records if record["record"] == "device" and record["round"] == 3]
        rounds = [record for record in records if record["record"] == "round"]
        last[text] = rounds[-1]["accuracy"], sum(one["socket_sent"] + one["socket_received"] for one in devices)
    exact, coded = last.values()
    assert coded[0] > exact[0] - 0.15
    if name not in ("frozen", "parallel_split_learning"):  # where no weights travel
        assert coded[1] < exact[1]
