"""The device's side of an update: a release that is offered is fetched piece by piece, checked, and handed to the installer.

    offer    retained, so a board that was away hears of it when it comes back; what it cannot use is answered with a reason
    fetch    a few pieces under way at a time, asked for again after a silence; what is here stays over restarts and power cuts
    check    the whole file's hash, then the release's signature: only then is there a file `ready` for the installer
    tell     phase, reason, how training goes: retained, when it changes, and now and then while the hub wants it

It has no thread: `turn` is called between two turns of the agent's loop, and does a little. It asks for a piece only while the budget
leaves more than training's share of it. The clock is an argument.
"""

import json
import logging
import shutil
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from statistics import fmean, median
from typing import Any, Protocol

from edge import installed
from edge.installed import Installed
from edge.link import Connected, Disconnected, LinkError, Message
from edge.part import Part
from edge.service import write_whole
from edge.side_link import SideLink
from edge.wire import topics, updates
from edge.wire.frames import WireError
from edge.wire.updates import PIECE_OVERHEAD, Figures, Offer, Piece, Release, State, Want

log = logging.getLogger("cutlayer.updates")

WINDOW = 2
"""Pieces under way; more would make training's messages wait behind them on a slow link."""
NARROW_PIECE_BYTES = 2048
"""Longest piece where a budget holds: one at a time."""
TIMEOUT_SECONDS = 5.0
"""Shortest silence after which a piece is asked for again; doubles each time, up to the limit."""
TIMEOUT_LIMIT_SECONDS = 900.0
SPARE_DISK_BYTES = 8 << 20
"""Left free on the disk beside what is fetched."""
RETRY_SECONDS = 60.0
"""After the disk had no room or failed."""
RESULT_SECONDS = 2.0
"""Between two looks for what the installer says."""
KEEP_SECONDS = 300.0
"""Between two times that figures alone are worth a write to the disk."""
LAST_STEPS = 64
"""That the figures are about."""
STEP_LEAST = 8
"""Fewer steps of this process do not replace what was known before."""
LOSS_LIMIT = 1e9
"""What is beyond, or no number, counts as this: a loss that has gone astray must be told, and a state takes finite numbers."""
CLOSED_KEPT = 16
"""Releases whose end is remembered."""

_DAMAGED = "what came is not the file that was offered: its hash differs"


class LaterError(ValueError):
    """A file cannot be checked yet: the board's clock is not set."""


class Means(Protocol):
    """What the updater asks of the device's budget; `edge.purse.Purse`."""

    @property
    def narrow(self) -> bool:
        """Whether bytes are limited, or may be by a budget that is not known yet."""

    def spare(self, way: str, keep: float) -> int | None:
        """Bytes that may go this way and leave that share of each limit untouched; None where nothing limits them."""


class Steps:
    """How training goes: the steps of this process, and what was known of the release before it."""

    def __init__(self, known: Figures) -> None:
        self._known = known
        self._count = 0
        self._seconds: deque[float] = deque(maxlen=LAST_STEPS)
        self._losses: deque[float] = deque(maxlen=LAST_STEPS)

    def add(self, seconds: float, loss: float | None) -> None:
        """A step is done; `loss` where the device knows it."""
        self._count += 1
        self._seconds.append(seconds)
        if loss is not None:
            self._losses.append(min(max(loss, -LOSS_LIMIT), LOSS_LIMIT) if loss == loss else LOSS_LIMIT)  # noqa: PLR0124  NaN

    def figures(self) -> Figures:
        """Of the last steps."""
        known = self._known
        steps = known.steps + self._count
        if len(self._seconds) < STEP_LEAST and known.step_seconds is not None:
            return replace(known, steps=steps)
        seconds = round(median(self._seconds), 6) if self._seconds else None
        return replace(
            known, steps=steps, step_seconds=seconds, loss=round(fmean(self._losses), 6) if self._losses else None
        )


class Memory:
    """What must survive a restart: figures by release, what became of releases, whose part lies there."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = ""
        try:
            record = json.loads(path.read_text("utf-8"))
            self.figures = {name: Figures(**found) for name, found in record["figures"].items()}
            self.starts = {name: int(count) for name, count in record["starts"].items()}
            self.closed = {name: (str(phase), str(reason)) for name, (phase, reason) in record["closed"].items()}
            self.part: tuple[str, str] = (str(record["part"][0]), str(record["part"][1]))
        except (OSError, ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
            self.figures, self.starts, self.closed, self.part = {}, {}, {}, ("", "")

    def close(self, release: str, phase: str, reason: str) -> None:
        """A release has come to its end here."""
        self.closed[release] = (phase, reason)
        self.closed = dict(list(self.closed.items())[-CLOSED_KEPT:])

    def keep(self) -> None:
        """Write it, where it has changed; what cannot be written is only logged."""
        text = json.dumps(
            {
                "figures": {name: asdict(found) for name, found in self.figures.items()},
                "starts": self.starts,
                "closed": self.closed,
                "part": self.part,
            }
        )
        if text == self._written:
            return
        try:
            write_whole(self._path, text.encode())
        except OSError as error:
            log.warning("%s cannot be written: %s", self._path, error.strerror)
        else:
            self._written = text


@dataclass
class _Fetch:
    """A release being fetched."""

    release: Release
    part: Part
    asked: dict[int, tuple[int, float]] = field(default_factory=dict)
    """By offset: length, and when."""
    held: dict[int, bytes] = field(default_factory=dict)
    """By offset: what came before its turn."""
    timeout: float = TIMEOUT_SECONDS
    again: bool = False
    """Whether it has been begun anew once, because what came was damaged."""

    def gap(self, longest: int) -> tuple[int, int] | None:
        """Offset and length of the next bytes to ask for."""
        position = self.part.length
        covered = [(offset, offset + length) for offset, (length, _) in self.asked.items()]
        covered += [(offset, offset + len(data)) for offset, data in self.held.items()]
        for begin, end in sorted(covered):
            if begin > position:
                return position, min(longest, begin - position)
            position = max(position, end)
        left = self.part.total - position
        return (position, min(longest, left)) if left > 0 else None


class Updater:
    """Fetches what is offered.

    Args:
        fleet, device: whose topics are heard.
        link: with these topics led aside.
        runs: the release that this process runs; None: the board was not installed from one.
        incoming: folder that the installer looks into; None as above.
        memory: what must survive.
        means: the budget.
        verify: raises ValueError with a sentence where a file is no release that this board takes, LaterError where it may be one later.
        proven: whether the release that runs has shown that it is well.
        piece_bytes: longest piece.
        keep: share of each limit of the budget that updates leave.
        free: bytes free on the disk of a folder.
        boot: names the time since the machine was switched on.
    """

    def __init__(
        self,
        fleet: str,
        device: str,
        link: SideLink,
        *,
        runs: Installed | None,
        incoming: Path | None,
        memory: Memory,
        means: Means,
        verify: Callable[[Path], object],
        proven: Callable[[], bool],
        piece_bytes: int = 8192,
        keep: float = 0.5,
        free: Callable[[Path], int] = lambda folder: shutil.disk_usage(folder).free,
        boot: str = "",
    ) -> None:
        self._fleet, self._device, self._link = fleet, device, link
        self._runs, self._incoming, self._memory = runs, incoming, memory
        self._means, self._verify, self._proven = means, verify, proven
        self._piece_bytes, self._keep, self._free, self._boot = piece_bytes, keep, free, boot
        self._room = piece_bytes
        self._offered: Release | None = None
        self._wanted: float | None = None
        """Seconds between two states that the hub wants; None: none."""
        self._ended: tuple[str, str] | None = None
        """Phase and reason of what is offered, where it has come to an end."""
        self._fetch: _Fetch | None = None
        self._waits = ""
        """What the fetch waits for."""
        self._retry_at = 0.0
        self._look_at = 0.0
        self._told: State | None = None
        self._told_at = self._kept_at = -KEEP_SECONDS
        self._key: tuple[Any, ...] = ()
        self._began()

    def _began(self) -> None:
        memory, runs = self._memory, self._runs
        before = None
        if runs is not None:
            others = [found for name, found in memory.figures.items() if name != runs.id]
            before = others[-1] if others else None
            known = memory.figures.pop(runs.id, Figures(bundle=runs.bundle))
            memory.figures = {**dict(list(memory.figures.items())[-1:]), runs.id: known}
            memory.starts = {name: memory.starts.get(name, 0) for name in memory.figures}
            memory.starts[runs.id] += 1
        self.steps = Steps(memory.figures[runs.id] if runs else Figures())
        self._before = before
        self._hear_installer()
        memory.keep()

    # Between two turns of the agent -----------------------------------------------------------------------------

    def turn(self, now: float) -> None:
        """Take in what came, do a little of what is due."""
        for event in self._link.aside():
            if isinstance(event, Message):
                self._take(event, now)
            elif isinstance(event, Connected):
                self._room = event.room(topics.update(self._fleet, self._device, "piece")) - PIECE_OVERHEAD
                self._told = None
                self._stir()
            elif isinstance(event, Disconnected) and self._fetch:
                self._fetch.asked.clear()
        if self._fetch and now >= self._retry_at:
            try:
                self._go_on(self._fetch, now)
            except OSError as error:
                self._wait(f"the disk: {error.strerror or error}", now)
        elif self._ended and self._ended[0] == "ready" and now >= self._look_at:
            self._look_at = now + RESULT_SECONDS
            self._hear_installer()
        self._tell(now)

    def state(self) -> State:
        """Where this device stands."""
        runs, fetch = self._runs, self._fetch
        phase, reason = self._ended or (("fetching", self._waits) if fetch else (self._resting(), ""))
        return State(
            phase=phase,
            reason=reason[: updates.REASON_LIMIT],
            release=runs.id if runs else "",
            version=runs.version if runs else 0,
            cutlayer=runs.cutlayer if runs else "",
            bundle=runs.bundle if runs else "",
            offered=self._offered.id if self._offered else "",
            here=fetch.part.length if fetch else 0,
            size=self._offered.size if self._offered else 0,
            starts=self._memory.starts.get(runs.id, 0) if runs else 0,
            now=self.steps.figures(),
            before=self._before,
        )

    def close(self) -> None:
        """Keep what must survive."""
        self._note_figures()
        self._memory.keep()
        if self._fetch:
            self._fetch.part.close()

    # What the hub says ------------------------------------------------------------------------------------------

    def _take(self, message: Message, now: float) -> None:
        try:
            if message.topic == topics.update(self._fleet, self._device, "offer"):
                self._hear(Offer.parse(message.payload) if message.payload else None, now)
            else:
                self._receive(Piece.parse(message.payload), now)
        except WireError as error:
            log.warning("refused from the rollout: %s", error)

    def _hear(self, offer: Offer | None, now: float) -> None:
        self._wanted = offer.state_seconds if offer else None
        release = offer.release if offer else None
        if release is None:
            self._withdraw()
        elif release == self._offered:
            self._stir()
        else:
            self._withdraw(for_another=True)
            self._offered = release
            self._ended = self._end_of(release, offer.fleet if offer else "")
            if self._ended and self._ended[0] == "refused":
                log.warning("release %s is not taken: %s", release.id[:8], self._ended[1])
            if self._ended is None and self._incoming and self._runs and release.id != self._runs.id:
                self._begin(release, self._incoming, now)

    def _end_of(self, release: Release, fleet: str) -> tuple[str, str] | None:
        """Phase and reason where there is nothing to fetch."""
        runs = self._runs
        if runs is None or self._incoming is None:
            return "refused", "this board was not installed from a release, so it cannot be updated over the air"
        if fleet != self._fleet:
            return "refused", f"the release is of fleet {fleet!r}, this device of {self._fleet!r}"
        if release.id == runs.id:
            return None
        if release.id in self._memory.closed:
            return self._memory.closed[release.id]
        if release.version <= runs.version:
            return "refused", f"version {release.version} is not newer than version {runs.version}, which runs"
        if installed.handed_over(self._incoming) == release.id:
            return "ready", ""
        return None

    def _withdraw(self, *, for_another: bool = False) -> None:
        if self._fetch:
            if for_another or self._offered:
                log.info("release %s is not offered any more", self._fetch.release.id[:8])
            self._fetch.part.discard()
            self._fetch = None
            self._memory.part = ("", "")
        self._offered = self._ended = None
        self._waits = ""

    def _stir(self) -> None:
        """The hub is there, or the link has come up again: there is no reason to wait any longer."""
        if self._fetch:
            self._fetch.asked.clear()
            self._fetch.timeout = TIMEOUT_SECONDS

    # The fetch --------------------------------------------------------------------------------------------------

    def _begin(self, release: Release, incoming: Path, now: float, *, again: bool = False) -> None:
        path = incoming / f"{release.id}.part"
        try:
            for other in incoming.glob("*.part"):
                if other != path or self._memory.part[0] != release.file:
                    other.unlink()
            lost_power = not self._boot or self._memory.part[1] != self._boot
            self._memory.part = (release.file, self._boot)
            self._memory.keep()  # before there is a part that it says this of
            self._fetch = _Fetch(release, Part(path, release.size, lost_power=lost_power), again=again)
        except OSError as error:
            reason = f"{incoming} cannot take the update: {error.strerror}"
            self._ended = "refused", reason
            log.warning("%s", reason)
            return
        self._retry_at = now
        log.info("release %s, version %d, is fetched: %d of %d bytes are here", release.id[:8], release.version,
                 self._fetch.part.length, release.size)  # fmt: skip

    def _receive(self, piece: Piece, now: float) -> None:
        fetch = self._fetch
        if fetch is None or piece.tag != fetch.release.tag or piece.offset not in fetch.asked:
            return  # late, twice, or of another release
        length, asked_at = fetch.asked.pop(piece.offset)
        fetch.timeout = max(TIMEOUT_SECONDS, 4 * (now - asked_at))
        fetch.held[piece.offset] = piece.data[:length]
        try:
            while fetch.part.length in fetch.held:
                fetch.part.add(fetch.held[fetch.part.length])
                fetch.held = {offset: data for offset, data in fetch.held.items() if offset >= fetch.part.length}
        except OSError as error:
            fetch.held.clear()
            self._wait(f"the disk: {error.strerror or error}", now)

    def _go_on(self, fetch: _Fetch, now: float) -> None:
        if not fetch.part.known:
            fetch.part.read_on()
        elif fetch.part.whole:
            self._check(fetch, now)
        elif self._link.connected:
            self._ask(fetch, now)

    def _ask(self, fetch: _Fetch, now: float) -> None:
        late = [offset for offset, (_, when) in fetch.asked.items() if now - when >= fetch.timeout]
        if late:
            fetch.timeout = min(TIMEOUT_LIMIT_SECONDS, 2 * fetch.timeout)
            for offset in late:
                del fetch.asked[offset]
        narrow = self._means.narrow
        longest = min(self._piece_bytes, self._room, *((NARROW_PIECE_BYTES,) if narrow else ()))
        if longest < updates.LEAST_PIECE_BYTES:
            self._wait("the broker takes no packet that is long enough for a piece", now)
            return
        while len(fetch.asked) < (1 if narrow else WINDOW) and (gap := fetch.gap(longest)):
            if self._lacks(fetch, gap[1], now):
                return
            offset, length = gap
            try:
                self._publish("want", Want(fetch.release.tag, offset, length).pack())
            except LinkError:
                return
            fetch.asked[offset] = (length, now)

    def _lacks(self, fetch: _Fetch, length: int, now: float) -> bool:
        """Whether something is missing for another piece; says what."""
        coming = length + sum(size for size, _ in fetch.asked.values())
        count = 1 + len(fetch.asked)
        for way, cost in (("down", coming * 11 // 10 + 400 * count), ("up", coming // 12 + 400 * count)):
            spare = self._means.spare(way, self._keep)
            if spare is not None and spare < cost:
                self._waits = (
                    f"the budget: what is left of what may {'come' if way == 'down' else 'go'} is for training"
                )
                return True
        if not fetch.asked:
            folder = fetch.part.path.parent
            free, needed = self._free(folder), fetch.part.total - fetch.part.length + SPARE_DISK_BYTES
            if free < needed:
                self._wait(f"{folder} has {free / 1e6:.1f} MB free, {needed / 1e6:.1f} MB are needed", now)
                return True
        self._waits = ""
        return False

    def _check(self, fetch: _Fetch, now: float) -> None:
        """All bytes are here: is it the file, and is the file a release that this board takes?"""
        release, part = fetch.release, fetch.part
        if part.digest() != release.file:
            part.discard()
            self._fetch = None
            if fetch.again:
                self._end(release, "refused", _DAMAGED)
            else:
                log.warning("%s; it is fetched once more", _DAMAGED)
                self._begin(release, part.path.parent, now, again=True)
            return
        try:
            self._verify(part.path)
        except LaterError as error:
            self._wait(str(error), now)
            return
        except ValueError as error:
            part.discard()
            self._fetch = None
            self._end(release, "refused", str(error))
            return
        installed.hand_over(part.path, release.id)
        part.close()
        self._fetch, self._ended = None, ("ready", "")
        self._memory.part = ("", "")
        self._note_figures()
        self._memory.keep()
        log.info("release %s is here and its signature is good: the installer may have it", release.id[:8])

    def _end(self, release: Release, phase: str, reason: str) -> None:
        self._ended = phase, reason
        self._memory.part = ("", "")
        self._memory.close(release.id, phase, reason)
        self._memory.keep()
        log.warning("release %s is %s: %s", release.id[:8], phase, reason)

    def _wait(self, reason: str, now: float) -> None:
        if reason != self._waits:
            log.warning("the update waits for %s", reason)
        self._waits, self._retry_at = reason, now + RETRY_SECONDS

    def _hear_installer(self) -> None:
        """What became of a release that the installer had."""
        if self._incoming is None or (said := installed.result(self._incoming)) is None:
            return
        runs = self._runs.id if self._runs else ""
        if said.outcome in ("refused", "rolled back") and said.release != runs:
            self._memory.close(said.release, said.outcome, said.reason)
            if self._offered and self._offered.id == said.release:
                self._ended = said.outcome, said.reason
                self._memory.keep()

    # What is told -----------------------------------------------------------------------------------------------

    def _resting(self) -> str:
        if self._runs is None:
            return "idle"
        return "healthy" if self._proven() else "trial"

    def _tell(self, now: float) -> None:
        if self._runs is None and self._wanted is None:
            return
        # Asked in every turn of the loop: between two looks at everything only what is said at once is looked at.
        rests = self._told and now - self._told_at < min(self._wanted or KEEP_SECONDS, KEEP_SECONDS)
        if rests and self._at_once() == self._key:
            return
        if not self._link.connected:
            return
        self._key = self._at_once()
        state = self.state()
        due = self._told is None or _essence(state) != _essence(self._told)
        due = due or (self._wanted is not None and state != self._told)
        self._told_at = now
        if due:
            data = state.pack()
            spare = self._means.spare("up", 0.0)
            if spare is not None and spare < 2 * len(data) + 1024:
                return
            try:
                self._publish("state", data, qos=1, retain=True)
            except LinkError:
                return
            self._told = state
        if now - self._kept_at >= KEEP_SECONDS:
            self._kept_at = now
            self._note_figures()
            self._memory.keep()

    def _at_once(self) -> tuple[Any, ...]:
        return self._ended, self._waits, self._offered, self._fetch is None, self._proven()

    def _note_figures(self) -> None:
        if self._runs:
            self._memory.figures[self._runs.id] = self.steps.figures()

    def _publish(self, leaf: str, data: bytes, **how: Any) -> None:
        self._link.publish(topics.update(self._fleet, self._device, leaf), data, **how)


def _essence(state: State) -> tuple[Any, ...]:
    """What is told at once when it changes."""
    return state.phase, state.reason, state.release, state.offered, state.starts
