"""The orchestrator with real agents over a memory link; the clock moves only when the hub polls."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from edge import bundle
from edge.accounts import Accounts
from edge.agent import Agent
from edge.mailbox import Mailbox
from edge.memory_link import MemoryBroker, MemoryLink
from edge.meters import Meter
from edge.outbox import Outbox
from edge.purse import Purse
from edge.segment import Segment
from edge.sensors import Batch
from edge.wire import messages, topics
from edge.wire.coder import Coder
from edge.wire.delivery import Delivery
from edge.wire.messages import Activation, Hello, Report, State
from edge.wire.repeats import Repeats
from hub.devices import Device, Devices, keep_report
from hub.known import BESIDE_BYTES, KnownSamples
from hub.orchestrator import FleetError, Orchestrator
from hub.store import ORDERS_RESERVED, Store
from hub.strategies.base import Learned, Order, Stand
from hub.terms import Shapes, Terms
from tests.tiny import write_bundle

FLEET = "f"


class Signs:
    """Four samples a device; the label says which feature is larger, so that smashed data with w = (1, 1) is right."""

    samples = 4
    test_samples = 4
    x = np.array([[3, 1], [1, 3], [5, 2], [2, 5]], np.float32)
    y = np.array([0, 1, 0, 1])

    def batch(self, round_number, step, size, seed):
        rows = slice(step * size % 4, step * size % 4 + size)
        return Batch(self.x[rows], self.y[rows])

    def test_batch(self, index, size):
        return Batch(self.x[index * size : (index + 1) * size], self.y[index * size : (index + 1) * size])

    def numbers(self, round_number, step, size, seed):
        return np.arange(step * size % 4, step * size % 4 + size)

    def fingerprint(self):
        return 1


class Everybody:
    """A strategy in its smallest form: one turn a round, everybody sends step 0, the hub notes what it learned."""

    together = False

    def __init__(self, order=None):
        self.order = order or Order(kind="forward", first_step=0, steps=2, send=(0,))
        self.together_with = []
        self.turns, self.stands, self.served = [], {}, []
        self.smashed = {}

    def turn(self, state, round_number, turn, present):
        if turn:
            return state, None
        self.turns.append(sorted(present))
        return state, dict.fromkeys(present, self.order)

    def learn(self, state, round_number, step, batches):
        lessons = {}
        for device, batch in batches.items():
            self.smashed[round_number, step, device] = batch.smashed.tolist(), batch.labels.tolist()
            gradient = torch.ones_like(batch.smashed) if self.order.kind == "exchange" else None
            lessons[device] = Learned(float(batch.smashed.sum()), gradient)
        self.together_with.append(sorted(batches))
        return [*state, *((round_number, step, device) for device in batches)], lessons

    def settle(self, state, round_number, turn, reports, states):
        self.reports, self.states = reports, states
        return state

    def end_round(self, state, round_number):
        return state

    def stand(self, state, device, present):
        return self.stands.get(device, Stand())

    def predict(self, state, device, smashed):
        self.served.append(device)
        return smashed


class Board:
    """One device."""

    def __init__(self, field, name):
        self.field, self.name, self.stuck = field, name, False
        self.start()

    def start(self):
        loaded = bundle.load(self.field.folder / "device.bundle")
        self.outbox = Outbox.open(self.field.folder / self.name)
        offline = json.dumps({"online": False, "instance": 1}).encode()
        self.link = MemoryLink(
            self.field.broker,
            self.name,
            will=(topics.status(FLEET, self.name), offline),
            subscriptions=topics.subscriptions_of_device(FLEET, self.name),
        )
        self.link.open()
        mailbox = Mailbox(self.name, FLEET, self.link, self.outbox, instance=1)
        accounts = Accounts(self.outbox, self.link, Meter(), loaded.manifest)
        purse = Purse(self.outbox, self.link, {})
        facts = {"outbox": self.name}
        self.agent = Agent(loaded, Segment(loaded), Signs(), mailbox, self.outbox, accounts, purse, facts=facts)

    def kill(self):
        self.link.break_off()
        self.outbox.close()


class Field:
    """Boards and a hub; the hub's link lets the boards work whenever the hub polls."""

    def __init__(self, folder, names):
        self.folder, self.now = folder, 0.0
        self.id = write_bundle(folder / "device.bundle", weights=(1.0, 1.0))
        self.broker = MemoryBroker()
        self.link = MemoryLink(self.broker, "hub", subscriptions=topics.subscriptions_of_hub(FLEET))
        self.poll, self.link.poll = self.link.poll, self.tick
        self.link.open()
        self.take_over(generation=100, instance=9)
        self.boards = {name: Board(self, name) for name in names}
        self.events = []

    def take_over(self, generation, instance):
        """A hub that remembers nothing of the one before."""
        self.devices = Devices(self.link, FLEET, self.id, generation=generation, instance=instance)
        self.devices.announce()

    def tick(self, timeout):
        self.now += 0.1
        for event in self.events:
            event()
        for board in self.boards.values():
            if not board.stuck and board.link.connected:
                board.agent.turn(lambda: self.now)
        return self.poll(timeout)

    def orchestrator(self, strategy, *, next_order=None, say=None, known=None, **terms):
        values = {
            "rounds": 3, "batch": 2, "seed": 0, "run": 1, "devices": len(self.boards), "minimum_devices": 1,
            "order": "free", "gather_seconds": 5.0, "turn_seconds": 20.0, "grace_seconds": 2.0, "evaluate_every": 1,
            "codec": "float32", "evaluation_codec": "float32",
        }  # fmt: skip
        shapes = Shapes(self.id, (2,), 2, {"lower": {"scale.weight": (2,)}})
        numbers = iter(range(1, 1000))
        next_order = next_order or (lambda: next(numbers))
        return Orchestrator(
            self.devices,
            strategy,
            Terms(**values | terms),
            shapes,
            next_order,
            now=lambda: self.now,
            known=known,
            **({"say": say} if say else {}),
        )


@pytest.fixture
def field(tmp_path):
    field = Field(tmp_path, ["a", "b", "c"])
    yield field
    for board in field.boards.values():
        board.kill()


def gathered(field, strategy, **terms):
    orchestrator = field.orchestrator(strategy, **terms)
    orchestrator.gather()
    return orchestrator, orchestrator.fleet(orchestrator.facts())


def test_the_fleet_is_who_says_hello(field):
    _, fleet = gathered(field, Everybody())
    assert fleet.names == ("a", "b", "c")
    assert [(member.samples, member.batches) for member in fleet.members] == [(4, 2)] * 3


def test_too_few_devices_are_a_plain_sentence(field):
    orchestrator = field.orchestrator(Everybody(), devices=5, minimum_devices=4)
    with pytest.raises(FleetError, match=r"3 of 5 devices came within 5 s; at least 4 are needed"):
        orchestrator.gather()


def test_a_patient_hub_waits_for_boards_that_have_yet_to_be_enrolled(field):
    late = {name: field.boards.pop(name) for name in ("a", "b")}
    orchestrator = field.orchestrator(Everybody(), minimum_devices=3, devices=5, patient=True)

    def watch():
        if field.now > 60.0:
            field.boards.update(late)

    orchestrator.gather(watch)
    assert 60.0 < field.now < 120.0
    assert orchestrator.fleet(orchestrator.facts()).names == ("a", "b", "c")


def test_the_hub_learns_in_a_fixed_order_however_frames_arrive(tmp_path):
    field = Field(tmp_path, ["a", "b", "c"])
    field.broker.__init__(delays=(0, 3, 1, 0, 2))
    field.link.open()
    for board in field.boards.values():
        board.link.open()
    strategy = Everybody(Order(kind="forward", first_step=0, steps=2, send=(0, 1)))
    orchestrator, fleet = gathered(field, strategy)
    state, learned = orchestrator.train([], fleet, 0)
    assert state == [(0, step, name) for step in (0, 1) for name in "abc"]
    assert learned.selected == {"a": 2, "b": 2, "c": 2}
    assert learned.samples == 12
    for board in field.boards.values():
        board.kill()


def test_gradients_go_down_and_the_devices_learn_from_them(field):
    strategy = Everybody(Order(kind="exchange", first_step=0, steps=1, send=(0,), give=("lower",)))
    orchestrator, fleet = gathered(field, strategy)
    orchestrator.train([], fleet, 0)
    # The gradient is 1 everywhere: w - lr·Σx over the batch's two rows, lr = 0.01
    for name in "abc":
        np.testing.assert_allclose(strategy.states[name]["scale.weight"], [1 - 0.04, 1 - 0.04], rtol=1e-6)


def test_accuracy_is_counted_over_each_devices_own_test_samples(field):
    orchestrator, fleet = gathered(field, Everybody())
    assert orchestrator.evaluate([], fleet, 0) == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_a_device_is_evaluated_with_the_weights_its_stand_says(field):
    strategy = Everybody()
    orchestrator, fleet = gathered(field, strategy)
    # Swapped signs make every answer wrong.
    wrong = {"scale.weight": np.array([-1, -1], np.float32)}
    strategy.stands = {"a": Stand(lower=wrong), "c": Stand(donor="a")}
    assert orchestrator.evaluate([], fleet, 0) == {"a": 0.0, "b": 1.0, "c": 1.0}
    # c got a's weights as they were before the evaluation, and is served as a; now a has the wrong ones.
    assert sorted(set(strategy.served)) == ["a", "b"]
    strategy.stands = {"c": Stand(donor="a")}
    assert orchestrator.evaluate([], fleet, 1) == {"a": 0.0, "b": 1.0, "c": 0.0}


@pytest.mark.parametrize("gone", [False, True])
def test_with_a_fixed_order_an_evaluation_waits_too(field, gone):
    """Weights that it is done with stay on the device: who was left out would end with others than an undisturbed run."""
    orchestrator, fleet = gathered(field, Everybody(), order="fixed", grace_seconds=0.1, turn_seconds=0.2)
    killed_for_a_second(field, "b")
    field.devices.known["b"].online = not gone
    assert orchestrator.evaluate([], fleet, 0) == {"a": 1.0, "b": 1.0, "c": 1.0}


def test_evaluation_bytes_stand_apart(field):
    orchestrator, fleet = gathered(field, Everybody())
    orchestrator.train([], fleet, 0)
    before = field.devices.known["a"].totals
    assert before["evaluation_sent"] == 0
    orchestrator.evaluate([], fleet, 0)
    after = field.devices.known["a"].totals
    assert after["evaluation_sent"] > 4 * 2 * 4
    assert after["paper_bytes"] == before["paper_bytes"]


@pytest.mark.parametrize("generation", [1, 200], ids=["wrong clock", "later"])
def test_the_next_hub_is_obeyed_although_it_counts_from_the_start(field, generation):
    first, fleet = gathered(field, Everybody())
    first.train([], fleet, 0)
    field.take_over(generation, instance=10)
    second, fleet = gathered(field, Everybody(), run=2)
    _, learned = second.train([], fleet, 0)
    assert (learned.late, sum(learned.selected.values())) == (set(), len(field.boards))


class ByHand:
    """A device that answers an order with what was left unsent from another run, and then as it should."""

    def __init__(self, field, unsent):
        self.field, self.unsent, self.delivery = field, unsent, Delivery(epoch=5, instance=1)
        self.link = MemoryLink(field.broker, "a", subscriptions=topics.subscriptions_of_device(FLEET, "a"))
        self.link.open()
        self.tell(Hello("a", 1, field.id, 4, 4, facts={"outbox": "a"}))

    def tell(self, message):
        self.delivery.send(messages.pack(message))

    def turn(self):
        for event in self.link.poll(0):
            if getattr(event, "topic", "").endswith("/down"):
                for item in self.delivery.receive(event.payload, self.field.now):
                    self.answer(messages.unpack(item.payload))
                    self.delivery.confirm(item.number)
        for frame in self.delivery.poll(self.field.now):
            self.link.publish(topics.up(FLEET, "a"), frame)

    def answer(self, message):
        if isinstance(message, messages.Order):
            for unsent in self.unsent:
                self.tell(unsent)
            own = Activation(
                message.bundle,
                message.order,
                message.round,
                0,
                "train",
                np.full((2, 2), 7, np.float32),
                np.array([0, 1]),
            )
            self.tell(own)
            self.tell(State(message.bundle, message.order, {"scale.weight": np.full(2, 7, np.float32)}))
            self.tell(Report(message.order, message.round, {"whose": "its own"}))


def test_what_lay_unsent_since_an_earlier_run_is_refused_and_counted_and_what_belongs_to_this_one_is_taken(tmp_path):
    field = Field(tmp_path, [])
    tag, number = bytes.fromhex(field.id[:8]), Store.open(tmp_path / "earlier").next_order()
    old = np.zeros((2, 2), np.float32)
    unsent = [
        Activation(tag, number, 0, 0, "train", old, np.array([0, 1])),
        State(tag, number, {"scale.weight": old[0]}),
        Report(number, 0, {"whose": "of the earlier run"}),
    ]
    field.events.append(ByHand(field, unsent).turn)
    strategy = Everybody(Order(kind="forward", first_step=0, steps=1, send=(0,), give=("lower",)))
    orchestrator = field.orchestrator(strategy, next_order=Store.open(tmp_path / "this").next_order, devices=1)
    orchestrator.gather()
    _, learned = orchestrator.train([], orchestrator.fleet(orchestrator.facts()), 0)
    assert strategy.reports["a"] == {"whose": "its own"}
    np.testing.assert_array_equal(strategy.states["a"]["scale.weight"], [7, 7])
    assert learned.losses == [28.0]  # the sum of its own four sevens
    refused = field.devices.known["a"].refused
    assert [refused[f"late {kind}"] for kind in ("activation", "state", "report")] == [1, 1, 1]


def test_a_run_that_is_resumed_counts_its_orders_on(tmp_path):
    first = Store.open(tmp_path / "run")
    numbers = [first.next_order() for _ in range(3)]
    assert numbers == [numbers[0], numbers[0] + 1, numbers[0] + 2]
    assert numbers[-1] < Store.open(tmp_path / "run").next_order() <= numbers[-1] + ORDERS_RESERVED


def test_weights_that_were_not_asked_for_or_are_no_numbers_are_refused(field):
    orchestrator, fleet = gathered(field, Everybody(Order(kind="forward", first_step=0, steps=0, give=("lower",))))
    field.boards["a"].agent._segment.tensors = lambda parts: {"scale.weight": np.zeros(3, np.float32)}
    _, learned = orchestrator.train([], fleet, 0)
    assert (learned.late, learned.states) == ({"a"}, len(field.boards) - 1)
    assert field.devices.known["a"].refused["weights 'scale.weight' of shape (3,), wanted (2,)"] == 1


def test_a_stuck_device_is_left_behind_at_the_deadline(field):
    strategy = Everybody()
    orchestrator, fleet = gathered(field, strategy, turn_seconds=5.0)
    field.boards["b"].stuck = True
    began = field.now
    state, learned = orchestrator.train([], fleet, 0)
    assert field.now - began == pytest.approx(5.0, abs=0.3)
    assert state == [(0, 0, "a"), (0, 0, "c")]
    assert learned.late == {"b"}
    assert set(strategy.reports) == {"a", "c"}


def test_a_deadline_is_waited_for_once_and_not_in_every_turn(field):
    strategy = Everybody()
    orchestrator, fleet = gathered(field, strategy, turn_seconds=5.0)
    field.boards["b"].stuck = True  # its link is dead, and the broker has not noticed
    state, _ = orchestrator.train([], fleet, 0)
    began = field.now
    state, learned = orchestrator.train(state, fleet, 1)
    assert field.now - began < 1.5
    assert (strategy.turns[1], learned.late) == (["a", "c"], set())
    field.boards["b"].stuck = False
    state, _ = orchestrator.train(state, fleet, 2)
    orchestrator.train(state, fleet, 3)
    assert strategy.turns[3] == ["a", "b", "c"]


def test_what_comes_late_is_counted_and_not_learned(field):
    orchestrator, fleet = gathered(field, Everybody(), turn_seconds=5.0)
    field.boards["b"].stuck = True
    state, _ = orchestrator.train([], fleet, 0)
    field.boards["b"].stuck = False
    state, _ = orchestrator.train(state, fleet, 1)
    assert [entry for entry in state if entry[2] == "b"] == [(1, 0, "b")]
    assert sum(field.devices.known["b"].refused.values()) >= 1


def test_a_device_that_is_gone_is_waited_for_no_longer_than_the_grace(field):
    orchestrator, fleet = gathered(field, Everybody())
    field.boards["b"].stuck = True
    began = field.now
    field.events.append(lambda: field.boards["b"].link.break_off() if field.now > began + 1 else None)
    _, learned = orchestrator.train([], fleet, 0)
    assert learned.late == {"b"}
    assert field.now - began < 5


def killed_for_a_second(field, name):
    """A device hangs, and is killed and started again a second from now."""
    board, began = field.boards[name], field.now
    board.stuck = True

    def restart():
        if field.now > began + 1 and board.stuck:
            board.kill()
            board.start()
            board.stuck = False

    field.events.append(restart)


def test_a_killed_device_comes_back_in_the_same_turn_and_finishes_it(field):
    orchestrator, fleet = gathered(field, Everybody(), grace_seconds=10.0)
    killed_for_a_second(field, "b")
    state, learned = orchestrator.train([], fleet, 0)
    assert learned.late == set()
    assert state == [(0, 0, "a"), (0, 0, "b"), (0, 0, "c")]


def test_a_device_that_greets_again_in_a_turn_is_said_to_be_back_before_it_has_anything_to_tell(field):
    said = []
    orchestrator, fleet = gathered(field, Everybody(), grace_seconds=10.0, say=lambda *words: said.append(words))
    killed_for_a_second(field, "b")
    orchestrator.train([], fleet, 0)
    words = [state for name, state in said if name == "b"]
    words = [word for word, before in zip(words, [None, *words], strict=False) if word != before]
    assert words[words.index("offline") :][:3] == ["offline", "forward", "done"]


def test_an_absent_device_is_not_asked_and_takes_part_again_when_it_is_back(field):
    strategy = Everybody()
    orchestrator, fleet = gathered(field, strategy)
    field.boards["b"].link.break_off()
    state, _ = orchestrator.train([], fleet, 0)
    field.boards["b"].kill()
    field.boards["b"].start()
    orchestrator.present(fleet)
    for _ in range(10):
        orchestrator._pump()
    orchestrator.train(state, fleet, 1)
    assert strategy.turns == [["a", "c"], ["a", "b", "c"]]


def test_with_too_few_devices_the_round_waits(field):
    strategy = Everybody()
    orchestrator, fleet = gathered(field, strategy, minimum_devices=3)
    field.boards["b"].link.break_off()
    gone = field.now

    def back():
        if field.now > gone + 30 and not field.boards["b"].link.connected:
            field.boards["b"].kill()
            field.boards["b"].start()

    field.events.append(back)
    orchestrator.train([], fleet, 0)
    assert field.now > gone + 30
    assert strategy.turns == [["a", "b", "c"]]


class Impostor:
    """Speaks the protocol by hand, as a device that is not ours might."""

    def __init__(self, field, name, **hello):
        self.field, self.name, self.inbox = field, name, []
        self.link = MemoryLink(field.broker, f"{name}-impostor", subscriptions=(topics.down(FLEET, name),))
        self.link.open()
        self.delivery = Delivery(epoch=2_000_000_000, instance=5)
        values = {"name": name, "instance": 5, "bundle": field.id, "samples": 4, "test_samples": 0}
        self.say(Hello(**values | {"facts": {"outbox": "another"}} | hello))
        field.events.append(self.turn)

    def say(self, message):
        self.delivery.send(messages.pack(message))

    def turn(self):
        for event in self.link.poll(0):
            if hasattr(event, "payload"):
                for item in self.delivery.receive(event.payload, self.field.now):
                    self.inbox.append(messages.unpack(item.payload))
                    self.delivery.confirm(item.number)
        for frame in self.delivery.poll(self.field.now):
            self.link.publish(topics.up(FLEET, self.name), frame)


def test_a_second_device_of_the_same_name_is_refused_and_the_first_goes_on(field):
    orchestrator, fleet = gathered(field, Everybody())
    impostor = Impostor(field, "b")
    for _ in range(20):
        orchestrator._pump()
    refusals = [message for message in impostor.inbox if isinstance(message, messages.Refusal)]
    assert [(refusal.fatal, refusal.instance) for refusal in refusals] == [(True, 5)]
    assert "another device named 'b' is online" in refusals[0].reason
    field.events.clear()
    state, learned = orchestrator.train([], fleet, 0)
    assert learned.late == set()
    assert len(state) == 3


def test_a_device_with_another_bundle_is_told_which_one_to_install(field):
    impostor = Impostor(field, "d", bundle="ab" * 32)
    orchestrator = field.orchestrator(Everybody())
    orchestrator.gather()
    for _ in range(20):
        orchestrator._pump()
    (refusal,) = (message for message in impostor.inbox if isinstance(message, messages.Refusal))
    assert f"has bundle abababab, this run uses {field.id[:8]}" in refusal.reason
    assert "d" not in field.devices.online()


@pytest.mark.parametrize(
    ("smashed", "labels", "sentence"),
    [
        (np.ones((1, 3), np.float32), [0], "activation of shape (1, 3), wanted (1, 2)"),
        (np.ones((1, 2), np.float32), [2], "label outside 0 to 1"),
        (np.ones((1, 2), np.float32), [-1], "label outside 0 to 1"),
    ],
)
def test_an_activation_that_does_not_fit_is_refused_and_the_round_goes_on(field, smashed, labels, sentence):
    impostor = Impostor(field, "d")
    orchestrator, fleet = gathered(field, Everybody(), devices=4)
    tag = bytes.fromhex(field.id[:8])

    def answer():
        for order in [message for message in impostor.inbox if isinstance(message, messages.Order)]:
            impostor.inbox.remove(order)
            impostor.say(Activation(tag, order.order, 0, 0, "train", smashed, np.array(labels)))
            impostor.say(Report(order.order, 0, {}))

    field.events.append(answer)
    state, learned = orchestrator.train([], fleet, 0)
    assert [entry[2] for entry in state] == ["a", "b", "c"]
    assert learned.late == {"d"}
    assert field.devices.known["d"].refused[sentence] == 1


def test_an_activation_that_names_a_table_the_hub_lacks_is_not_waited_for_and_its_device_is_told(field):
    impostor = Impostor(field, "d")
    orchestrator, fleet = gathered(field, Everybody(), devices=4, order="fixed")
    tag = bytes.fromhex(field.id[:8])
    coder = Coder(1.0)
    smashed = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    coder.encode(smashed)
    coder.known(coder.table.id)  # which another hub may have had

    def answer():
        for order in [message for message in impostor.inbox if isinstance(message, messages.Order)]:
            impostor.inbox.remove(order)
            impostor.say(Activation(tag, order.order, 0, 0, "train", smashed, np.zeros(200, np.int64), coder))
            impostor.say(Report(order.order, 0, {}))

    field.events.append(answer)
    state, learned = orchestrator.train([], fleet, 0)
    assert [entry[2] for entry in state] == ["a", "b", "c"]
    assert learned.late == {"d"}
    assert field.devices.known["d"].refused["table"] == 1
    for _ in range(5):
        field.devices.poll(0, field.now)
    (refusal,) = [message for message in impostor.inbox if isinstance(message, messages.Refusal)]
    assert refusal.reason == f"table {coder.table.id:08x} is not known here"
    assert not refusal.fatal


def test_garbage_is_counted_by_device_and_strangers_apart(field):
    orchestrator, fleet = gathered(field, Everybody())
    stranger = MemoryLink(field.broker, "stranger")
    stranger.open()
    stranger.publish(topics.up(FLEET, "a"), b"garbage that is no frame")
    stranger.publish(f"cutlayer/{FLEET}/bad name!/up", b"x")
    stranger.publish(topics.status(FLEET, "a"), b"not json")
    state, _ = orchestrator.train([], fleet, 0)
    assert len(state) == 3
    assert sum(field.devices.known["a"].refused.values()) == 2
    assert sum(field.devices.strangers.values()) == 1


def test_what_the_hub_says_does_not_wait_for_what_it_hears(field):
    gathered(field, Everybody())
    board, listen, seen = field.boards["a"], field.link.poll, []
    board.stuck = True
    board.link.poll(0)

    def poll(timeout):
        seen.append(board.link.waiting)
        return listen(timeout)

    field.link.poll = poll
    field.devices.send("a", messages.Goodbye("so long"))
    field.devices.poll(0.2, field.now)
    assert seen == [True]


TOTALS = {
    "sent": 1, "received": 1, "retransmitted": 0, "evaluation_sent": 0, "evaluation_received": 0, "paper_bytes": 0,
    "elements": 0, "flops": 0.0, "paper_flops": 0.0, "peak_rss_bytes": 1, "cpu_seconds": 0.1, "restarts": 0,
    "source": "here", "energy": {"joules": None, "reason": "no meter"}, "refused": {},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "taken"),
    [
        ({"known": {"sent": 3, "skipped": 4}}, True),
        ({"known": {"sent": 3, "skipped": -4}}, False),
        ({"known": 3}, False),
        ({}, True),
        ({"peak_rss_bytes": None}, False),
        ({"peak_rss_bytes": None, "missing": {"peak_rss_bytes": "shared"}}, True),
        ({"sent": None, "missing": {"sent": "not counted"}}, False),
        ({"missing": {"peak_rss_bytes": 3}}, False),
        ({"missing": "all"}, False),
    ],
)
def test_a_report_may_lack_a_figure_if_it_says_why(changes, taken):
    device = Device("a", Delivery(epoch=1, instance=1))
    keep_report(device, Report(1, 0, TOTALS | changes))
    assert bool(device.totals) is taken
    assert device.refused["report"] == (not taken)


def test_a_device_whose_connection_broke_is_there_again_once_it_is_back(field):
    """The broker publishes its will; the same process comes back and has nothing new to say of itself."""
    strategy = Everybody()
    orchestrator, fleet = gathered(field, strategy)
    field.boards["b"].link.break_off()
    orchestrator.train([], fleet, 0)
    assert strategy.turns[-1] == ["a", "c"]
    field.boards["b"].link.open()
    orchestrator.train([], fleet, 1)
    orchestrator.train([], fleet, 2)
    assert strategy.turns[-1] == ["a", "b", "c"]


def test_a_device_that_cannot_pay_is_asked_for_less(field):
    """Of 8 activations, 266 bytes each, the budget carries some, after the reports and with what is left over for the end."""
    order = Order(kind="forward", first_step=0, steps=8, send=tuple(range(8)))
    strategy = Everybody(order)
    orchestrator, fleet = gathered(field, strategy, rounds=1, budget={"up_per_run": 5_500.0})
    state, learned = orchestrator.train([], fleet, 0)
    sent = [step for _, step, device in state if device == "a"]
    assert 0 < len(sent) < 8
    assert learned.selected["a"] == len(sent)
    assert orchestrator.present(fleet) == ["a", "b", "c"]


def test_when_every_budget_is_spent_and_nobody_is_there_the_run_says_so(field):
    orchestrator, fleet = gathered(field, Everybody(), budget={"up_per_run": 4_000.0})
    for board in field.boards.values():
        board.link.break_off()
    orchestrator._pump(0.0)
    with pytest.raises(FleetError, match="the budgets of all 3 devices are spent"):
        orchestrator.present(fleet)


def missed(field):
    return sum(device.refused["known sample that the hub has no longer"] for device in field.devices.known.values())


def cached(field, strategy, known, **terms):
    return gathered(field, strategy, known=known, skip_below=0.1, refresh_rounds=9, **terms)


SENT_ALL = [[3, 1], [1, 3]], [0, 1]


def test_a_sample_that_was_not_sent_again_is_learned_from_again(field):
    strategy, known = Everybody(), KnownSamples(None, 1000, 9)
    orchestrator, fleet = cached(field, strategy, known)
    rounds = [orchestrator.train([], fleet, number)[1] for number in (0, 1, 2)]
    assert list(strategy.smashed.values()) == [SENT_ALL] * 9
    assert [(learned.samples, learned.served) for learned in rounds] == [(6, 0), (6, 6), (6, 6)]
    assert field.devices.known["a"].totals["known"] == {"sent": 2, "skipped": 4}
    assert field.devices.known["a"].totals["elements"] == 2 * 2


def test_a_hub_that_has_lost_its_cache_goes_on_and_gets_the_samples_again(field):
    strategy = Everybody()
    orchestrator, fleet = cached(field, strategy, KnownSamples(None, 1000, 9))
    orchestrator.train([], fleet, 0)
    orchestrator._known = KnownSamples(None, 1000, 9)
    _, learned = orchestrator.train([], fleet, 1)
    assert (learned.samples, learned.served, learned.late, missed(field)) == (0, 0, set(), 6)
    assert field.devices.known["a"].refused == {"known sample that the hub has no longer": 2}
    assert [key for key in strategy.smashed if key[0] == 1] == [], "of a batch of nothing there is nothing to learn"
    orchestrator.train([], fleet, 2)
    assert strategy.smashed[2, 0, "b"] == SENT_ALL


def test_what_the_hub_has_no_room_for_is_sent_again_or_missing_and_never_another(field):
    """Five of six samples find room: what makes way in a turn may be named in the same turn, and is told with the next order."""
    strategy, known = Everybody(), KnownSamples(None, 5 * (2 * 4 + BESIDE_BYTES), 9)
    orchestrator, fleet = cached(field, strategy, known)
    learned = sum(orchestrator.train([], fleet, number)[1].samples for number in range(6))
    pairs = {(*row, label) for lesson in strategy.smashed.values() for row, label in zip(*lesson, strict=True)}
    assert pairs == {(3, 1, 0), (1, 3, 1)}
    assert learned + missed(field) == 6 * 6
    counts = [field.devices.known[name].totals["known"] for name in "abc"]
    assert sum(count["sent"] + count["skipped"] for count in counts) == 6 * 6
    assert 6 < sum(count["sent"] for count in counts) < 36
    assert missed(field) <= 6


def test_for_orders_that_give_gradients_every_sample_is_sent(field):
    strategy, known = Everybody(Order(kind="exchange", first_step=0, steps=1, send=(0,))), KnownSamples(None, 1000, 9)
    orchestrator, fleet = cached(field, strategy, known)
    for number in (0, 1):
        orchestrator.train([], fleet, number)
    assert known.served == 0
    assert "known" not in field.devices.known["a"].totals


def test_more_known_samples_than_a_batch_has_are_refused(field):
    strategy, known = Everybody(), KnownSamples(None, 1000, 9)
    orchestrator, fleet = cached(field, strategy, known)
    board = field.boards["a"]
    pick = board.agent._uploads._known.pick

    def lie(order, message):
        names = Repeats(9, np.array([0, 1]), np.array([7]), np.array([1]))
        return replace(pick(order, message), repeats=names)

    board.agent._uploads._known.pick = lie
    _, learned = orchestrator.train([], fleet, 0)
    assert field.devices.known["a"].refused["batch of 2 samples and 1 known ones, wanted 2 at most"] == 1
    assert learned.selected == {"b": 1, "c": 1}
