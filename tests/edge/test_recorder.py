"""A device is recorded while everything goes wrong, and run again: memory link, a clock that only the test moves."""

import json
import os
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from edge import bundle
from edge.accounts import Accounts
from edge.agent import Agent
from edge.flight import replay, ring, trace
from edge.flight.freeze import Freezer, Thawer
from edge.flight.recorder import CLASSES, Recorder
from edge.flight.recording import ReplayError, read
from edge.link import Message
from edge.mailbox import Mailbox
from edge.memory_link import MemoryBroker, MemoryLink
from edge.meters import Meter, Used
from edge.outbox import Outbox
from edge.profiler import Found
from edge.purse import Purse
from edge.segment import Segment
from edge.sensors import Batch
from edge.wire import messages, topics
from edge.wire.delivery import Delivery, Limits
from edge.wire.inquiry import Answer, Inquiry
from edge.wire.messages import Activation, Goodbye, Gradient, Order, Report, State, Welcome
from edge.wire.tables import Tables
from edge.wire.weights import Base, Difference
from tests.edge.wire.test_inquiry import noise
from tests.tiny import write_bundle

FLEET, NAME = "f", "d1"
ROWS = np.array([[1, 2], [3, 4], [5, 6], [7, 8]], np.float32)
LIMIT = 1 << 20


class Rows:
    """Batch k of any round is row k, as often as it is asked for."""

    samples = 4
    test_samples = 3

    def batch(self, round_number, step, size, seed):
        rows = np.resize(ROWS[step % 4], (size, 2))
        return Batch(rows, np.zeros(size, np.int64))

    def test_batch(self, index, size):
        return Batch(ROWS[index : index + 1], np.zeros(1, np.int64))

    def numbers(self, round_number, step, size, seed):
        return np.arange(step % 4, step % 4 + size)

    def fingerprint(self):
        return 1


class Watch:
    """Keeps what it is told."""

    def __init__(self):
        self.entries, self.messages, self.reasons = [], [], []

    def entry(self, now, entry):
        self.entries.append((now, entry))

    def arrived(self, now, message):
        self.messages.append((now, message))

    def refused(self, now, reason):
        self.reasons.append((now, reason))


class Stage:
    """A device that is recorded, and the hub's end of the conversation."""

    def __init__(self, folder, *, limit=LIMIT, limits=None, gauge=None, budget=None, profiler=None, **broker):
        self.gauge, self.budget, self.profiler = gauge, budget or {}, profiler
        self.folder, self.limit, self.limits = folder, limit, limits or Limits()
        self.broker = MemoryBroker(**broker)
        self.id = write_bundle(folder / "b")
        self.now, self.instance = 1000.0, 0
        self.link = MemoryLink(self.broker, "hub", subscriptions=topics.subscriptions_of_hub(FLEET))
        self.link.open()
        self.delivery = Delivery(epoch=1, instance=99, limits=self.limits)
        self.inbox, self.tables = [], Tables()
        self.link.publish(topics.hub_status(FLEET), topics.pack_status(online=True, instance=7), retain=True)
        self.start()

    @property
    def ring(self):
        return self.folder / "ring"

    def start(self, *, outage=False):
        self.instance += 1
        loaded = bundle.load(self.folder / "b")
        self.recorder = Recorder(self.ring, self.limit, now=lambda: self.now, wall=lambda: 0.0)
        self.outbox = self.recorder.outbox(Outbox.open(self.folder / "state"))
        if self.outbox.fact("bundle") is None:
            self.outbox.put_fact("bundle", loaded.id)
            self.outbox.commit()
        self.device_link = MemoryLink(self.broker, NAME, subscriptions=topics.subscriptions_of_device(FLEET, NAME))
        link = self.recorder.link(self.device_link)
        mailbox = Mailbox(NAME, FLEET, link, self.outbox, instance=self.instance, limits=self.limits)
        self.segment = Segment(loaded)
        accounts = Accounts(self.outbox, link, Meter(), loaded.manifest)
        purse = Purse(self.outbox, link, self.budget, gauge=self.gauge)
        self.agent = Agent(
            loaded,
            self.segment,
            Rows(),
            mailbox,
            self.outbox,
            accounts,
            purse,
            facts={"board": "made up"},
            profiler=self.profiler,
        )
        self.recorder.begin(self.agent, self.segment)
        if not outage:
            link.start()

    def kill(self):
        """End the device as kill -9 does: nobody closes anything."""
        self.device_link.break_off()
        self.outbox.close()

    def run(self, turns=40, seconds=0.3):
        for _ in range(turns):
            self.now += seconds
            self.recorder.turn_over()
            self.agent.turn(self.recorder.clock)
            for event in self.link.poll(0):
                if getattr(event, "topic", "").endswith("/up"):
                    for item in self.delivery.receive(event.payload, self.now):
                        self.inbox.append(messages.unpack(item.payload, tables=self.tables))
                        self.delivery.confirm(item.number)
            for frame in self.delivery.poll(self.now):
                self.link.publish(topics.down(FLEET, NAME), frame)
        self.recorder.turn_over()

    def until(self, condition):
        for _ in range(400):
            if condition():
                return
            self.run(3)
        raise AssertionError("1200 turns were not enough")

    def tell(self, message):
        self.delivery.send(messages.pack(message))

    def order(self, number, kind="local", steps=4, send=(), **fields):
        values = {"round": 0, "first_step": 0, "settings": {}, "codec": "float32", "batch": 1, "seed": 0, **fields}
        self.tell(Order(bundle=bytes.fromhex(self.id[:8]), order=number, kind=kind, steps=steps, send=send, **values))

    def gradient(self, order, step, batch=1):
        tag = bytes.fromhex(self.id[:8])
        self.tell(Gradient(tag, order, 0, step, np.ones((batch, 2), np.float32), 0.5))

    def got(self, kind):
        return [message for message in self.inbox if isinstance(message, kind)]

    def home(self):
        return replay.Home(bundle.load(self.folder / "b"), Rows())

    def files(self):
        return [read(path) for path in ring.segments(self.ring)]

    def again(self, *, home=True):
        """What differs, file by file."""
        return [replay.run(file, self.home() if home else None, Watch()) for file in self.files()]


@pytest.fixture
def staged(tmp_path):
    stages = []

    def make(**options):
        stages.append(Stage(tmp_path, **options))
        return stages[-1]

    yield make
    for stage in stages:
        stage.kill()


@pytest.fixture
def trouble(staged):
    """Frames are lost, repeated and late; a kill in the middle of an order, an outage, an order that is refused."""
    stage = staged(loss=(0, 0, 1, 0, 0, 0, 1), repeats=(0, 1, 0, 0, 0), delays=(0, 0, 0, 2))
    stage.order(1, steps=12, send=(1, 5, 9))
    stage.run(5)
    stage.kill()
    stage.start()
    stage.until(lambda: stage.got(Report))
    stage.order(2, kind="exchange", steps=2)
    stage.until(lambda: len(stage.got(Activation)) == 4)
    stage.device_link.break_off("the mast is gone")
    stage.gradient(2, 0)
    stage.run(20)
    stage.device_link.open()
    stage.until(lambda: len(stage.got(Activation)) == 5)
    stage.gradient(2, 1)
    stage.until(lambda: len(stage.got(Report)) == 2)
    stage.order(3, settings={"lr": 9.0})
    stage.link.publish(topics.hub_status(FLEET), b"no status at all", retain=True)
    stage.until(lambda: len(stage.got(Report)) == 3)
    stage.order(4, kind="evaluate", steps=3)
    stage.until(lambda: len(stage.got(Report)) == 4)
    stage.tell(Goodbye("that was all"))
    stage.run(30)
    assert [report.order for report in stage.got(Report)] == [1, 2, 3, 4]
    return stage


@pytest.mark.parametrize("home", [True, False])
def test_a_start_in_an_outage_comes_out_the_same(staged, home):
    stage = staged()
    stage.order(1, steps=12, send=(1, 5, 9), beyond=6)
    stage.run(5)
    stage.kill()
    stage.start(outage=True)
    stage.run(40)
    assert stage.outbox.fact("spare_position") == 12 + 6
    stage.device_link.open()
    stage.until(lambda: stage.got(Report))
    assert len(stage.got(Activation)) == 3
    assert stage.again(home=home) == [None, None]


class Ticking:
    """One CPU second for every question."""

    missing_energy = ""

    def __init__(self):
        self.seconds = 0.0

    def used(self, *, joules=False):
        self.seconds += 1
        return Used(self.seconds)


@pytest.mark.parametrize("home", [True, False])
def test_orders_that_end_early_for_want_of_cpu_seconds_come_out_the_same(staged, home):
    stage = staged(gauge=Ticking(), budget={"cpu_seconds_per_round": 9.0})
    stage.order(1, steps=20, send=(1, 5, 18, 19))
    stage.until(lambda: stage.got(Report))
    stage.order(2, steps=2, kind="forward", send=(0,))
    stage.until(lambda: len(stage.got(Report)) == 2)
    stage.order(3, steps=20, round=1, send=(0, 19), beyond=30)
    stage.run(4)
    stage.kill()
    stage.start()
    stage.until(lambda: len(stage.got(Report)) == 3)
    reports = [report.metrics for report in stage.got(Report)]
    assert [metrics["cut"] for metrics in reports] == ["cpu_seconds"] * 3
    assert 0 < reports[0]["steps"] < 9
    assert reports[1]["steps"] == 0
    assert stage.again(home=home) == [None, None]


def changed(file, kind, change, *, last=False):
    """A recording in which one entry that `change` answers for is another one."""
    places = range(len(file.entries))
    for place in reversed(places) if last else places:
        entry = file.entries[place]
        other = change(entry) if isinstance(entry, kind) else None
        if other:
            return replace(file, entries=[*file.entries[:place], other, *file.entries[place + 1 :]]), place
    raise AssertionError("nothing to change")


@pytest.mark.parametrize("home", [True, False])
def test_bad_luck_a_kill_and_an_outage_come_out_the_same(trouble, home):
    assert trouble.again(home=home) == [None, None]


def test_what_is_run_again_is_all_that_was_recorded(trouble):
    watch = Watch()
    last = trouble.files()[-1]
    assert replay.run(last, trouble.home(), watch) is None
    assert [entry for _, entry in watch.entries] == last.entries
    orders = [message.order for _, message in watch.messages if isinstance(message, Order)]
    assert orders == [1, 2, 3, 4]
    assert "status" in [reason for _, reason in watch.reasons]


@pytest.mark.parametrize("home", [True, False])
def test_a_changed_byte_in_a_frame_from_the_hub_is_found(trouble, home):
    def damage(entry):
        for place, event in enumerate(entry.events):
            if isinstance(event, Message) and event.topic.endswith("/down") and len(event.payload) > 60:
                payload = bytes([*event.payload[:-9], event.payload[-9] ^ 1, *event.payload[-8:]])
                events = (*entry.events[:place], Message(event.topic, payload), *entry.events[place + 1 :])
                return replace(entry, events=events)
        return None

    file, place = changed(trouble.files()[-1], trace.Polled, damage, last=True)
    difference = replay.run(file, trouble.home() if home else None, Watch())
    # The last long frame is the order to evaluate: its CRC fails now, so it is neither carried out nor acknowledged.
    assert difference.number > place + 1
    missing = "position = 0" if home else "acknowledgement: done to 6"
    assert difference.expected.startswith(missing)
    assert not difference.found.startswith(missing)


def test_another_decision_is_found_and_named(trouble):
    def later(entry):
        if entry.name != "position" or entry.value != "10":
            return None
        return replace(entry, value="11")

    file, place = changed(trouble.files()[-1], trace.Fact, later)
    difference = replay.run(file, trouble.home(), Watch())
    assert (difference.number, difference.expected, difference.found) == (place + 1, "position = 11", "position = 10")


@pytest.mark.parametrize("home", [True, False])
def test_a_frame_with_another_number_is_found_and_named(trouble, home):
    def other(entry):
        head = entry.payload.head
        if not head.startswith(b"CL") or len(head) < trace.HEAD or head[3] != 1:
            return None
        return replace(entry, payload=replace(entry.payload, head=bytes([*head[:12], head[12] ^ 8, *head[13:]])))

    file, place = changed(trouble.files()[-1], trace.Published, other)
    difference = replay.run(file, trouble.home() if home else None, Watch())
    assert difference.number == place + 1
    assert "chunk 1 of 1 of message 10" in difference.expected
    assert "chunk 1 of 1 of message 2" in difference.found


def test_weights_that_differ_are_found_although_nothing_is_sent(trouble):
    file, place = changed(trouble.files()[-1], trace.State, lambda entry: replace(entry, crc=entry.crc ^ 1), last=True)
    difference = replay.run(file, trouble.home(), Watch())
    assert difference.number == place + 1
    assert "state of CRC" in difference.found
    assert replay.run(file, None, Watch()) is None  # without its data nobody can tell


def test_a_ring_stays_within_its_bound_and_runs_from_its_oldest_file(staged):
    stage = staged(limit=40_000)
    for number in range(1, 40):
        stage.order(number, steps=6, send=(0, 5), batch=40)
        stage.until(lambda: len(stage.got(Report)) == number)  # noqa: B023  asked at once
        assert sum(file.stat().st_size for file in stage.ring.iterdir()) <= 40_000
    files = stage.files()
    assert int(files[0].path.stem) > 1
    assert not any(file.restarted for file in files)
    orders = [order for file in files for order in orders_in(stage, file)]
    assert orders == list(range(40 - len(orders), 40))
    assert len(orders) > 3
    assert set(stage.again()) == {None}
    assert set(stage.again(home=False)) == {None}


def orders_in(stage, file):
    watch = Watch()
    replay.run(file, stage.home(), watch)
    return [message.order for _, message in watch.messages if isinstance(message, Order)]


def test_a_torn_tail_is_ignored_and_the_rest_runs(staged):
    stage = staged()
    stage.order(1, steps=4, send=(0,))
    stage.run(30)
    (path,) = ring.segments(stage.ring)
    whole = len(read(path).entries)
    assert read(path).ignored_bytes == 0
    os.truncate(path, path.stat().st_size - 5)
    file = read(path)
    assert file.ignored_bytes > 0
    assert 0 < len(file.entries) < whole
    assert replay.run(file, stage.home(), Watch()) is None
    with path.open("ab") as end:
        end.write(bytes(4096))  # as a file system may leave it
    assert len(read(path).entries) == len(file.entries)


def test_a_link_that_takes_nothing_and_a_full_disk_come_out_the_same(staged, monkeypatch):
    stage = staged()
    stage.run(5)
    stage.broker.maximum_packet_bytes = 60
    stage.order(1, steps=2, send=(0,))
    stage.delivery.poll(stage.now)
    stage.run(3)
    stage.broker.maximum_packet_bytes = 1 << 20
    monkeypatch.setattr("edge.agent.time", SimpleNamespace(sleep=lambda seconds: None, perf_counter=lambda: 0.0))
    stage.outbox._database.execute("PRAGMA query_only = 1")
    stage.order(2, steps=3, send=(1,))
    stage.run(8)
    stage.outbox._database.execute("PRAGMA query_only = 0")
    stage.until(lambda: stage.got(Report))
    kinds = [entry for entry in stage.files()[0].entries if isinstance(entry, trace.Committed) and entry.reason]
    assert kinds
    assert stage.again() == [None]
    assert stage.again(home=False) == [None]


def test_a_recorder_whose_disk_is_full_lets_the_device_go_on(staged, monkeypatch):
    stage = staged()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("edge.flight.ring.os.write", full)
    stage.order(1, steps=4, send=(0,))
    stage.until(lambda: stage.got(Report))
    monkeypatch.undo()
    stage.run(10, seconds=10.0)  # a minute later it tries again
    stage.order(2, steps=4, send=(0,))
    stage.until(lambda: len(stage.got(Report)) == 2)
    assert len(stage.files()) == 2
    assert stage.again() == [None, None]


def test_a_message_too_long_for_a_file_ends_it_and_the_next_one_runs(staged):
    stage = staged(limit=19_000)
    stage.run(5)
    for _ in range(20):  # 400 bytes each, in one turn
        stage.link.publish(topics.down(FLEET, NAME), bytes(400))
    stage.run(5)
    stage.order(1, steps=4, send=(0,))
    stage.until(lambda: stage.got(Report))
    assert set(stage.again()) == {None}
    first, second, *_ = stage.files()
    assert not second.restarted
    assert second.span[0] - first.span[1] <= 0.3
    assert [order for file in stage.files() for order in orders_in(stage, file)] == [1]


def test_long_messages_that_wait_for_the_hub_are_kept_by_their_length(staged):
    stage = staged(limit=64_000, limits=Limits(chunk_bytes=2048))
    stage.run(5)
    stage.order(1, steps=6, send=(0, 1, 2, 3, 4, 5), batch=1200)
    stage.run(2)
    stage.device_link.break_off("gone")
    stage.run(600)
    stage.device_link.open()
    stage.until(lambda: stage.got(Report))
    files = stage.files()
    assert any(not kept for file in files for _, kept in file.record["blobs"])
    assert set(stage.again()) == {None}
    assert set(stage.again(home=False)) == {None}


def test_samples_that_the_hub_knows_are_skipped_again(staged):
    stage = staged(limit=64_000)
    told = {"kind": "forward", "send": (0, 1, 2, 3), "skip_below": 0.1, "refresh_rounds": 90}
    for number in range(1, 30):
        forget = (2,) if number == 9 else ()
        stage.order(number, round=number, forget=forget, **told)
        stage.until(lambda number=number: len(stage.got(Report)) == number)
        if number == 5:
            stage.kill()
            stage.start()
    sent = [len(message.labels) for message in stage.got(Activation)]
    assert (sum(sent[:4]), sum(sent[4:32]), sum(sent[32:36]), sum(sent[36:])) == (4, 0, 1, 0)
    assert len(stage.files()) > 3, "so that some begin when much is known"
    assert set(stage.again()) == {None}
    assert set(stage.again(home=False)) == {None}


def test_nothing_is_recorded_when_the_bound_is_zero(tmp_path):
    recorder = Recorder(tmp_path / "ring", 0)
    broker = MemoryBroker()
    link = MemoryLink(broker)
    asked = []
    assert recorder.link(link) is link
    assert recorder.between(asked.append) == asked.append
    recorder.close()
    assert not (tmp_path / "ring").exists()


def test_a_bundle_that_the_device_did_not_have_is_no_home(trouble, tmp_path):
    write_bundle(tmp_path / "other", weights=(3.0, 4.0))
    home = replay.Home(bundle.load(tmp_path / "other"), Rows())
    assert "the device had bundle" in replay.fault(trouble.files()[-1], home)


def test_a_recording_can_reach_nothing_outside(trouble, tmp_path):
    file = trouble.files()[-1]
    record = {**file.record, "tables": [f"ATTACH DATABASE '{tmp_path}/planted' AS planted"]}
    with pytest.raises(ReplayError, match="not authorized"):
        replay.run(replace(file, record=record), None, Watch())
    assert not (tmp_path / "planted").exists()


@pytest.mark.parametrize("seconds", [0.0, 12.345678901, 1e-9, 0.1 + 0.2, -5.0, 1.7e9, 3e8 + 0.123456789])
def test_a_clock_is_the_same_to_the_last_bit(seconds):
    writer, reader = trace.Writer(), trace.Reader()
    for reading in (7.0, seconds, 3.5):
        writer.clock(reading)
    assert list(reader.entries(writer.take())) == [trace.Clock(7.0), trace.Clock(seconds), trace.Clock(3.5)]


def test_a_file_that_is_no_recording_says_so(tmp_path):
    (tmp_path / "x.rec").write_bytes(b"something else")
    with pytest.raises(ReplayError, match=r"x\.rec is no recording"):
        read(tmp_path / "x.rec")


def test_a_coder_and_its_tables_go_on_in_a_replay(staged):
    stage = staged(limit=40_000)
    for number in range(1, 40):
        stage.order(number, round=number, steps=10, send=tuple(range(10)), batch=200, codec="entropy:1")
        stage.until(lambda: len(stage.got(Report)) == number)  # noqa: B023  asked at once
    assert len(ring.segments(stage.ring)) > 1
    assert set(stage.again(home=True)) == {None}


def test_weights_that_were_coded_are_coded_again_with_what_was_left_out(staged):
    stage = staged(limit=40_000)
    start = Base({"scale.weight": np.array([1, 2], np.float32)})
    told = Difference(start.id, ("lower",), np.array([0.5, 0.25], np.float32))
    for number in range(1, 40):
        stage.order(number, round=number, give=("lower",), weights="quantised:2", difference=told)
        stage.until(lambda: len(stage.got(Report)) == number)  # noqa: B023  asked at once
        if number == 20:
            stage.kill()
            stage.start()
    assert len({message.difference.values.tobytes() for message in stage.got(State)}) > 1
    assert len(ring.segments(stage.ring)) > 2
    assert set(stage.again(home=True)) == {None}


def test_what_a_purse_decided_is_decided_again(staged):
    stage = staged()
    stage.tell(Welcome(1, "welcome", {"up_per_run": 20_000.0}))
    stage.order(1, steps=12, send=tuple(range(12)), batch=64, allowance=2000)
    stage.until(lambda: stage.got(Report))
    sent = stage.got(Activation)
    assert 0 < len(sent) <= 12
    assert any(len(message.labels) < 64 for message in sent)
    assert stage.again(home=True) == [None]


def test_what_several_parts_of_an_agent_share_they_share_in_a_replay(staged):
    stage = staged()
    stage.run(5)
    freezer = Freezer(CLASSES)
    frozen = json.loads(json.dumps(freezer.freeze(stage.agent)))
    parts = dict.fromkeys(("_bundle", "_segment", "_source", "_meter", "_link", "_outbox", "_purse", "_inquiries"))
    agent = Thawer(CLASSES, freezer.blobs, parts).thaw(frozen)
    assert agent._uploads._mailbox is agent._beyond._mailbox is agent._mailbox
    assert agent._uploads._accounts is agent._checkpoints._accounts is agent._accounts


class Slow:
    """A profiler that is done when the test says so."""

    found = None

    def start(self, inquiry):
        pass

    def look(self):
        return self.found

    def end(self):
        pass


@pytest.mark.parametrize("home", [True, False])
@pytest.mark.parametrize("text", ["{}", noise(40_000)], ids=["short", "long"])
def test_a_profile_for_the_hub_comes_out_the_same(staged, home, text):
    profiler = Slow()
    stage = staged(profiler=profiler)
    stage.tell(Inquiry(1, (), (), (), 1.0, 60.0))
    stage.run(6)
    stage.order(1, steps=4, send=(0,))
    stage.run(6)
    stage.kill()
    stage.start()
    stage.run(6)
    profiler.found = Found(text)
    stage.until(lambda: stage.got(Answer) and stage.got(Report))
    stage.tell(Inquiry(2, (), (), (), 1.0, 60.0))
    profiler.found = None
    stage.run(6)
    stage.tell(Goodbye("that was all"))
    stage.run(6)
    assert [answer.number for answer in stage.got(Answer)] == [1]
    assert stage.again(home=home) == [None, None]


def test_a_recording_that_begins_within_a_profile_can_be_run_again(staged):
    profiler = Slow()
    stage = staged(limit=24_000, profiler=profiler)
    stage.tell(Inquiry(1, (), (), (), 1.0, 60.0))
    stage.run(10)
    for _ in range(40):
        stage.link.publish(topics.down(FLEET, NAME), bytes(400))
        stage.run(1)
    profiler.found = Found("{}")
    stage.order(1, steps=4, send=(0,))
    stage.until(lambda: stage.got(Report))
    assert len(stage.files()) > 1
    assert not stage.files()[-1].restarted
    assert set(stage.again()) == {None}
