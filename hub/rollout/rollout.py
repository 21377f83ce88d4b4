"""A rollout as it goes: what devices say comes in, who is offered what goes out. No clock, no I/O.

    a device is   when
    away          nothing is known of it, or it is offline and has not taken the release, or was well on it and has been gone for long
    fetching      it is offered the release and is there
    proving       it has all of it, or runs it, and has not been well for long enough
    held          it has been there and well on it for that long, and is no worse off than before; it stays so when it goes away
    skipped       it cannot take it, and says why: another board, another way of installing, a newer version
    failed        it rolled back, or is worse off
    lost          it took it and was not heard of again

A stage is over when none of its devices is fetching or proving and at least one is held; who is away does not hold it up, but the
last stage waits for all, as long as the command is patient. Where more devices than a few of a hundred have failed or are lost,
the canary already, the rollout stops.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from edge.wire.updates import Figures, Offer, State
from hub.rollout import gate, plan
from hub.rollout.book import DONE, RUNNING, STOPPED, Book, Entry
from hub.rollout.gate import Drift, Margins

AWAY, FETCHING, PROVING, HELD, SKIPPED, FAILED, LOST = (
    "away", "fetching", "proving", "held", "skipped", "failed", "lost",
)  # fmt: skip
TOLERATED = 0.1
"""Share of the devices that may fail or be lost before a rollout stops, rounded down."""
LONGEST_HOLD = 3.0
"""Times the hold after which a device that does no steps counts as well all the same."""


@dataclass(frozen=True)
class Times:
    """Of a rollout, in seconds."""

    gather: float = 5.0
    """To hear who is there before the first is chosen."""
    hold: float = 120.0
    """That a device must have been well."""
    trial: float = 900.0
    """In which a device that has the release must show that it is well."""
    state: float = 10.0
    """Between two states of a device."""


@dataclass
class Live:
    """What this process knows of a device."""

    online: bool = False
    state: State | None = None
    well_since: float | None = None
    """Since when it has been there and well on the release."""
    well_for: float = 0.0
    """Seconds that it was so before it went away."""
    took_at: float | None = None
    gone_at: float | None = None


@dataclass
class Rollout:
    """A rollout.

    Args:
        book: where it stands.
        fleet: its name.
        margins: how much worse a device may be off.
        times: of it.
        say: told what happens, a line each.
    """

    book: Book
    fleet: str
    margins: Margins = field(default_factory=Margins)
    times: Times = field(default_factory=Times)
    say: Callable[[str], None] = lambda _text: None

    def __post_init__(self) -> None:
        self.stages = plan.parse(self.book.stages)
        self.live: dict[str, Live] = {}
        self.news_at: float | None = None
        """When anything was heard that is worth waiting on for."""
        self.urgent = True
        """Whether the book has to be written soon."""
        self._began: float | None = None
        for name in self.book.devices:
            self.live[name] = Live()

    @property
    def running(self) -> bool:
        """Whether it is neither done nor stopped."""
        return self.book.outcome == RUNNING

    @property
    def scope(self) -> list[str]:
        """Names that it is about."""
        return sorted(name for name in self.live if not self.book.only or name in self.book.only)

    def hear_status(self, name: str, now: float, *, online: bool) -> None:
        """A device has come or gone."""
        live = self._live(name)
        if live.online != online:
            live.online = online
            live.gone_at = None if online else now
            self.news_at = now
        self._count(live, now)

    def hear_state(self, name: str, state: State, now: float) -> None:
        """A device says where it stands."""
        live, entry, release = self._live(name), self._entry(name), self.book.release
        before, live.state = live.state, state
        if before is None or _news(before) != _news(state):
            self.news_at = now
        on_it = state.release == release.id
        mine = state.offered == release.id
        took = on_it or (mine and state.phase == "ready")
        if took and live.took_at is None:
            live.took_at = now
        self._count(live, now)
        if not entry.took and not took and (entry.stage is not None or entry.before is None):
            entry.before = state.now
        told = (state.phase, state.reason, state.version, on_it, entry.took or took)
        if told != (entry.phase, entry.reason, entry.version, entry.on_it, entry.took):
            entry.phase, entry.reason, entry.version, entry.on_it, entry.took = told
            self.urgent = True
            if entry.stage is not None and (mine or on_it):
                self.say(f"{name}: {_in_words(state)}")

    def turn(self, now: float) -> None:
        """See what follows from all that has been heard."""
        self._began = now if self._began is None else self._began
        self.news_at = now if self.news_at is None else self.news_at
        if not self.running or now - self._began < self.times.gather:
            return
        self._judge()
        self._note_well(now)
        self._choose(now)
        if reason := self._fault(now):
            self.stop(reason)
        elif self._over(now):
            self._next()

    def offers(self) -> dict[str, bytes]:
        """What each device of the fleet shall be offered; empty: nothing, and what it was offered is withdrawn."""
        found = {}
        watch = Offer(self.fleet, None, self.times.state).pack()
        release = Offer(self.fleet, self.book.release, self.times.state).pack()
        scope = set(self.scope)
        for name in self.live:
            entry = self.book.devices.get(name)
            chosen = entry is not None and entry.stage is not None
            if name in scope:
                found[name] = (release if chosen else watch) if self.running else b""
            elif chosen:
                found[name] = b""  # by a command before this one, which was about other devices
        return found

    def serves(self, name: str) -> bool:
        """Whether a device may have the file's bytes."""
        entry = self.book.devices.get(name)
        about = not self.book.only or name in self.book.only
        return self.running and about and entry is not None and entry.stage is not None

    def stop(self, reason: str) -> None:
        """It ends here; nobody is offered the release any more."""
        self.book.outcome, self.book.reason, self.urgent = STOPPED, reason, True

    def standing(self, name: str, now: float) -> str:
        """Where a device is, in a word of the table above."""
        live, entry = self.live[name], self.book.devices.get(name) or Entry()
        state, release = live.state, self.book.release
        if entry.worse:
            return FAILED
        if entry.well and (state is None or (state.release == release.id and state.phase == "healthy")):
            return HELD
        if state is None:
            return PROVING if entry.took and not self._late(live, now) else LOST if entry.took else AWAY
        if state.release == release.id:
            if live.well_since is not None:
                return HELD if self._long_enough(entry, live, now) else PROVING
            # No network is not unhealthy, and proves nothing either.
            late = AWAY if state.phase == "healthy" and not live.online else LOST
            return late if self._late(live, now) else PROVING
        if state.offered == release.id and state.phase in ("rolled back", "refused"):
            return FAILED if state.phase == "rolled back" else SKIPPED
        if entry.took:
            return LOST if self._late(live, now) else PROVING
        return FETCHING if live.online and entry.stage is not None else AWAY

    def members(self) -> list[str]:
        """Who has been chosen so far."""
        return [name for name in self.scope if self._entry(name).stage is not None]

    def _live(self, name: str) -> Live:
        return self.live.setdefault(name, Live())

    def _entry(self, name: str) -> Entry:
        return self.book.devices.setdefault(name, Entry())

    def _count(self, live: Live, now: float) -> None:
        """How long a device has been there and well: one that said so and has not been seen since proves nothing."""
        state = live.state
        well = state is not None and state.release == self.book.release.id and state.phase == "healthy"
        if live.well_since is not None and not (well and live.online):
            live.well_for, live.well_since = live.well_for + now - live.well_since, None
        elif live.well_since is None and well and live.online:
            live.well_since = now
        if not well:
            live.well_for = 0.0

    def _note_well(self, now: float) -> None:
        for name in self.members():
            entry = self._entry(name)
            if not entry.well and self.standing(name, now) == HELD:
                entry.well = self.urgent = True

    def _late(self, live: Live, now: float) -> bool:
        """Whether a device that has taken the release, or has gone with it, has had its time."""
        since = live.took_at if live.took_at is not None else self._began
        since = max(since, live.gone_at) if since is not None and live.gone_at is not None else since
        return since is not None and now - since >= self.times.trial

    def _long_enough(self, entry: Entry, live: Live, now: float) -> bool:
        if live.well_since is None or live.state is None:
            return False
        well, hold = live.well_for + now - live.well_since, self.times.hold
        return well >= LONGEST_HOLD * hold or (well >= hold and gate.settled(entry.before, live.state.now))

    def _judge(self) -> None:
        meanwhile = self._drift()
        for name in self.members():
            entry, state = self._entry(name), self.live[name].state
            if entry.worse or state is None or state.release != self.book.release.id:
                continue
            before = entry.before if entry.before and entry.before.steps else state.before
            if worse := gate.judge(before, state.now, meanwhile, self.margins):
                entry.worse, self.urgent = worse, True
                self.say(f"{name}: {worse}")

    def _drift(self) -> Drift:
        def controls() -> list[tuple[Figures, Figures]]:
            return [
                (entry.before, state.now)
                for name in self.scope
                if (entry := self._entry(name)).stage is None
                and entry.before
                and (state := self.live[name].state)
                and self.live[name].online
            ]

        return gate.drift(controls())

    def _choose(self, now: float) -> None:
        stage = self.stages[self.book.stage]
        names = plan.ranked(self.scope, self.book.release.id)
        if stage.share >= 1:
            self._take(names)
            return
        if stage.name == plan.CANARY and self.book.canaries:
            self._take([name for name in names if name in self.book.canaries])
            return
        standing = {name: self.standing(name, now) for name in self.members()}
        # Who went away with it is no reason to give it to one more.
        counted = [n for n, found in standing.items() if found != SKIPPED and (found != AWAY or self._entry(n).took)]
        fit = [name for name in names if self._entry(name).stage is None and self._fits(name)]
        self._take(fit[: max(0, stage.count(len(names)) - len(counted))])

    def _fits(self, name: str) -> bool:
        """Whether a device is there and can take the release, as far as it has said."""
        live, release = self.live[name], self.book.release
        state = live.state
        if state is None or not live.online or not state.release:
            return False
        return state.release == release.id or state.version < release.version

    def _take(self, names: Sequence[str]) -> None:
        stage = self.stages[self.book.stage]
        for name in names:
            if (entry := self._entry(name)).stage is None:
                entry.stage, self.urgent = self.book.stage, True
                self.say(f"{name} is offered version {self.book.release.version} (stage {stage.name})")

    def _fault(self, now: float) -> str:
        """Why the rollout has to stop; empty where it need not."""
        members = self.members()
        standing = {name: self.standing(name, now) for name in members}
        bad = [name for name, found in standing.items() if found in (FAILED, LOST)]
        if len(bad) > int(TOLERATED * len(members)):
            return "; ".join(self._why(name, standing[name]) for name in bad[:3])
        stated = [name for name in self.scope if self.live[name].state is not None]
        skipped = [name for name in members if standing[name] == SKIPPED]
        if skipped and len(skipped) == len(stated) and not self._absent():
            return f"no device takes it; {skipped[0]}: {self._entry(skipped[0]).reason}"
        return ""

    def _absent(self) -> bool:
        return any(name not in self.live for name in self.book.only) or any(
            live.state is None or not live.online for live in map(self.live.__getitem__, self.scope)
        )

    def _why(self, name: str, standing: str) -> str:
        entry = self._entry(name)
        if entry.worse:
            return f"{name}: {entry.worse}"
        if standing == LOST:
            return f"{name} took it and did not become well within {self.times.trial:g} s"
        return f"{name} rolled back: {entry.reason or 'it did not become well'}"

    def _over(self, now: float) -> bool:
        found = [self.standing(name, now) for name in self.members()]
        if HELD not in found or {FETCHING, PROVING} & set(found):
            return False
        last = self.book.stage + 1 == len(self.stages)
        if not last:
            return True
        return not (self.stages[-1].share >= 1 and AWAY in found) and all(name in self.live for name in self.book.only)

    def _next(self) -> None:
        stage = self.stages[self.book.stage]
        self.urgent = True
        count = sum(self._entry(name).on_it for name in self.members())
        self.say(
            f"stage {stage.name} is over: {count} of {len(self.scope)} devices have version {self.book.release.version}"
        )
        if self.book.stage + 1 == len(self.stages):
            self.book.outcome = DONE
        else:
            self.book.stage += 1


def _news(state: State) -> tuple[object, ...]:
    return state.phase, state.reason, state.release, state.offered, state.here


def _in_words(state: State) -> str:
    return f"{state.phase}{f' ({state.reason})' if state.reason else ''}"
