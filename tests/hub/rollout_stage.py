"""Made-up fleets for tests of rollouts: states as devices would tell them."""

from edge.wire.updates import Figures, Release, State
from hub.rollout.book import Book
from hub.rollout.rollout import Rollout, Times

OLD, NEW = "a" * 64, "c" * 64
BUNDLE = "b" * 64
RELEASE = Release(NEW, 4, 1000, "e" * 64, BUNDLE, "0.2.0")
TIMES = Times(gather=1.0, hold=10.0, trial=100.0, state=5.0)
GOOD = Figures(64, 0.1, 1.0, BUNDLE)


def old(now=GOOD, **more):
    return State("healthy", release=OLD, version=3, bundle=BUNDLE, now=now, **more)


def told(phase, reason="", here=0, **more):
    """On the old release, about the new one."""
    return State(phase, reason, release=OLD, version=3, offered=NEW, here=here, size=1000, now=GOOD, **more)


def new(phase="healthy", now=GOOD, before=GOOD):
    return State(phase, release=NEW, version=4, bundle=BUNDLE, offered=NEW, now=now, before=before)


class Fleet:
    """A rollout, and a clock that the test moves."""

    def __init__(self, names, to="canary,50%,all", **book):
        self.said = []
        self.book = Book(RELEASE, to, **book)
        self.now = 0.0
        self.rollout = Rollout(self.book, "f", times=TIMES, say=self.said.append)
        self.rollout.turn(self.now)
        for name in names:
            self.there(name)

    def there(self, name, state=None):
        self.rollout.hear_status(name, self.now, online=True)
        self.rollout.hear_state(name, state or old(), self.now)

    def gone(self, name):
        self.rollout.hear_status(name, self.now, online=False)

    def say(self, name, state):
        self.rollout.hear_state(name, state, self.now)

    def pass_(self, seconds=1.0):
        self.now += seconds
        self.rollout.turn(self.now)

    def chosen(self):
        return set(self.rollout.members())

    def update(self, *names, now=GOOD):
        """They fetch, restart and are well for long enough."""
        for name in names:
            self.say(name, told("ready"))
            self.say(name, new("trial", now))
            self.say(name, new("healthy", now))
        self.pass_()
        self.pass_(TIMES.hold)

    def again(self):
        """The command is killed, and run again."""
        self.book = Book.parse(self.book.to_json())
        self.rollout = Rollout(self.book, "f", times=TIMES, say=self.said.append)
