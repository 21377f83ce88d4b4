"""Two sides of a delivery and the pipe between them, moved by hand."""

from edge.wire.delivery import Delivery, Limits
from edge.wire.frames import Data, parse

LIMITS = Limits(
    message_bytes=1 << 20,
    chunk_bytes=100,
    window_bytes=10 * 128,
    partial_bytes=1 << 20,
    ack_seconds=0.0,
    unconfirmed_messages=8,
)


class Conversation:
    """`a` sends, `b` receives and confirms at once unless told otherwise."""

    def __init__(self, limits=LIMITS, *, confirms=True):
        self.limits = limits
        self.now = 100.0
        self.confirms = confirms
        self.a = Delivery(epoch=1, instance=11, limits=limits)
        self.b = Delivery(epoch=1, instance=21, limits=limits)
        self.arrived = []
        self.data = []
        """Every data frame that a has sent."""
        self.settle()

    def up(self, *, drop=lambda frame: False, frames=None):
        """Carry what a has to say to b; returns what was carried."""
        carried = [frame for frame in (self.a.poll(self.now) if frames is None else frames) if not drop(parse(frame))]
        self.data += [parse(frame) for frame in carried if isinstance(parse(frame), Data)]
        for frame in carried:
            for delivered in self.b.receive(frame, self.now):
                self.arrived.append(delivered.payload)
                if self.confirms:
                    self.b.confirm(delivered.number, delivered.epoch)
        return carried

    def down(self, *, drop=lambda frame: False, frames=None):
        carried = [frame for frame in (self.b.poll(self.now) if frames is None else frames) if not drop(parse(frame))]
        for frame in carried:
            self.a.receive(frame, self.now)
        return carried

    def settle(self):
        """Carry to and fro until nobody has anything to say, without any time passing."""
        while self.up() or self.down():
            pass

    def wait(self):
        """Let time pass until a side wants to speak."""
        times = [time for time in (self.a.timer(), self.b.timer()) if time is not None]
        self.now = max(self.now, min(times))

    def finish(self):
        """Let time pass until all is done, in a bounded number of turns."""
        for _ in range(50):
            self.settle()
            if self.a.idle and self.b.idle:
                return
            self.wait()
        raise AssertionError("the conversation does not end")

    def finish_with_confirmations(self):
        self.confirms = True
        self.finish()


def chunk(number, index=0):
    """Picks one chunk of one message."""
    return lambda frame: isinstance(frame, Data) and (frame.number, frame.index) == (number, index)


def everything(frame):
    return True
