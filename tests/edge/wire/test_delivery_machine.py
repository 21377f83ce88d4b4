"""Whatever the pipe and the power supply do: each payload has its effect once."""

from collections import Counter

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edge.wire.delivery import Delivery, Ledger, Limits

LIMITS = Limits(
    message_bytes=1000,
    chunk_bytes=10,
    window_bytes=200,
    partial_bytes=1000,
    unconfirmed_messages=3,
    confirm_seconds=5,
)
SIDES = st.sampled_from([0, 1])


class Side:
    """A device or a hub: what is durable, and the process that is lost with each restart."""

    def __init__(self, place):
        self.place = place
        self.epochs = {10 * place + 10}
        self.stream = {"epoch": max(self.epochs), "next": 1}
        self.outbox = {}
        self.ledger = Ledger()
        self.effects = Counter()
        self.starts = 0
        self.start()

    def start(self):
        self.starts += 1
        self.delivery = Delivery(
            epoch=self.stream["epoch"],
            instance=1000 * self.place + self.starts,
            next_number=self.stream["next"],
            received=self.ledger,
            limits=LIMITS,
        )
        for number, (payload, urgent) in sorted(self.outbox.items()):
            self.delivery.restore(number, payload, urgent=urgent)
        self.waiting = []
        self.pending = []

    def send(self, payload, urgent):
        number = self.delivery.next_number
        self.outbox[number] = (payload, urgent)
        self.stream = {"epoch": self.delivery.epoch, "next": number + 1}
        assert self.delivery.send(payload, urgent=urgent) == number

    def follow(self):
        """The outbox learns what delivery has learned; one transaction."""
        if self.delivery.renumbered:
            self.outbox = {number: (payload, urgent) for number, payload, urgent in self.delivery.take_renumbered()}
            self.epochs.add(self.delivery.epoch)
            self.stream = {"epoch": self.delivery.epoch, "next": self.delivery.next_number}
        for number in self.delivery.acknowledged():
            del self.outbox[number]
        if self.delivery.received.epoch != self.ledger.epoch:
            self.ledger = self.delivery.received

    def apply(self):
        """Effect and ledger in one transaction; only then the acknowledgement."""
        delivered = self.waiting.pop(0)
        if delivered.epoch == self.delivery.received.epoch:
            self.effects[delivered.payload] += 1
            self.ledger = self.delivery.received.with_done(delivered.number)
            self.delivery.confirm(delivered.number, delivered.epoch)


class Machine(RuleBasedStateMachine):
    def __init__(self):
        super().__init__()
        self.now = 0.0
        self.sides = [Side(0), Side(1)]
        self.pipe = [[], []]
        """Frames on their way to each side."""
        self.sent = [set(), set()]
        self.forgotten = [set(), set()]
        self.count = 0

    @rule(side=SIDES, size=st.integers(0, 60), urgent=st.booleans())
    def send(self, side, size, urgent):
        self.count += 1
        payload = b"%d:" % self.count + bytes(size)
        self.sides[side].send(payload, urgent)
        self.sent[side].add(payload)

    @rule(side=SIDES)
    def poll(self, side):
        self.sides[side].follow()
        self.pipe[1 - side] += self.sides[side].delivery.poll(self.now)

    @rule(side=SIDES, place=st.integers(0, 30))
    def carry(self, side, place):
        """One frame arrives, perhaps out of turn."""
        if self.pipe[side]:
            self.hear(side, self.pipe[side].pop(place % len(self.pipe[side])))

    @rule(side=SIDES, again=st.booleans())
    def carry_all(self, side, again=False):
        """All frames arrive, perhaps to come again."""
        frames, self.pipe[side] = self.pipe[side], []
        for frame in frames:
            self.hear(side, frame)
        if again:
            self.pipe[side] = frames

    @rule(side=SIDES, place=st.integers(0, 30))
    def lose(self, side, place):
        if self.pipe[side]:
            del self.pipe[side][place % len(self.pipe[side])]

    @rule()
    def wipe_the_broker(self):
        self.pipe = [[], []]
        for side in self.sides:
            side.delivery.reconnected(self.now)

    @rule(seconds=st.sampled_from([0.01, 0.5, 2.0, 100.0]))
    def pass_time(self, seconds):
        self.now += seconds

    @rule(side=SIDES)
    def apply(self, side):
        if self.sides[side].waiting:
            self.sides[side].apply()

    @rule(side=SIDES)
    def restart(self, side):
        self.sides[side].start()

    @rule(side=SIDES, epoch=st.integers(1, 60))
    def lose_the_outbox(self, side, epoch):
        """The memory of the sending half is gone; what was in it may or may not have had its effect."""
        here = self.sides[side]
        if epoch not in here.epochs:
            here.epochs.add(epoch)
            self.forgotten[side] |= {payload for payload, _ in here.outbox.values()}
            here.outbox, here.stream = {}, {"epoch": epoch, "next": 1}
            here.start()

    @invariant()
    def nothing_happens_twice(self):
        for side in self.sides:
            assert all(times == 1 for times in side.effects.values())

    @invariant()
    def nothing_acknowledged_is_missing(self):
        for side in (0, 1):
            kept = {payload for payload, _ in self.sides[side].outbox.values()} | self.forgotten[side]
            assert self.sent[side] <= kept | set(self.sides[1 - side].effects)

    def hear(self, side, frame):
        here = self.sides[side]
        here.waiting += here.delivery.receive(frame, self.now)

    def teardown(self):
        for _ in range(200):
            self.now += 10.0
            for side in (0, 1):
                self.carry_all(side)
                while self.sides[side].waiting:
                    self.apply(side)
                self.poll(side)
            if all(side.delivery.idle for side in self.sides) and not any(self.pipe):
                break
        for side in (0, 1):
            assert not self.sides[side].outbox
        self.nothing_acknowledged_is_missing()
        self.nothing_happens_twice()


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=80, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
