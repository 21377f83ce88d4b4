"""`cutlayer-hub trial replay`: a device's recording runs again on this machine, in no time, and is compared.

    verdict = replay(Path("state/recorder"), bundle=Path("device.bundle"), data="device.npz")

With bundle and data the whole device runs again, training included; without them its conversation with the hub.
`edge/flight/recorder.py` says what is in a recording, `edge/flight/replay.py` how it is run.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from edge.flight import replay as tapes
from edge.flight import ring, telling, trace
from edge.flight.recording import Recording, ReplayError, read
from edge.flight.tape import Difference
from edge.link import Connected, Disconnected, Message
from edge.wire.messages import Message as WireMessage

DIFFERENT = 1
MISTAKE = 2

SILENCE_SECONDS = 10.0
"""A silence of the hub that is worth a line."""

_QUIET = (trace.Clock, trace.Up, trace.Down, trace.Next)


@dataclass
class Verdict:
    """What came of a replay."""

    device: str
    agent: bool
    """Whether all of it was run with the whole agent, not only the conversation."""
    files: int = 0
    processes: int = 0
    events: int = 0
    """What came from the link, was published, put or committed."""
    frames: int = 0
    """Payloads that were published, and compared."""
    seconds: float = 0.0
    """Of the device's time, without the gaps between files."""
    took: float = 0.0
    """Seconds here."""
    difference: Difference | None = None
    where: str = ""
    """File and time of the difference."""
    notes: list[str] = field(default_factory=list)
    """What was left out, and why."""

    @property
    def same(self) -> bool:
        """Whether everything came out as it was recorded."""
        return self.difference is None

    def __str__(self) -> str:
        how = f"{self.events} events over {_length(self.seconds)} replayed in {self.took:.1f} s"
        if self.difference is None:
            what = "device" if self.agent else "conversation"
            return (
                f"{how} ({what}, {self.files} files, {self.processes} processes): every frame the same ({self.frames})"
            )
        return f"{how}, then a difference. {self.where}, {self.difference}"


def replay(
    path: Path,
    bundle: Path | None = None,
    data: str | None = None,
    say: Callable[[str], None] = print,
    *,
    timeline: bool = False,
) -> Verdict:
    """Run a recording again, up to the first difference.

    Args:
        path: a device's recorder folder, or one file of it.
        bundle: that the device had; with `data` the whole device runs again.
        data: as `[data] source` of the device's configuration names it.
        say: takes the lines of the timeline and the verdict.
        timeline: whether to tell what happened, with times from the beginning of the recording.

    Raises:
        ReplayError: there is no recording, bundle or data there, or none that can be used.
    """
    if (bundle is None) != (data is None):
        raise ReplayError("bundle and data belong together: give both, or neither to run the conversation alone")
    with _silent(), tempfile.TemporaryDirectory() as folder:
        verdict = _run(path, bundle, data, Path(folder), say if timeline else _nobody)
    for note in verdict.notes:
        say(note)
    say(str(verdict))
    return verdict


def command(options: argparse.Namespace) -> int:
    """Run a device's recording again, and say whether it does the same; returns the exit code.

    Args:
        options: `path`, `bundle`, `data` and `timeline`, as `replay` takes them.
    """
    try:
        verdict = replay(options.path, options.bundle, options.data, timeline=options.timeline)
    except ReplayError as error:
        print(f"cutlayer-hub trial replay: {error}", file=sys.stderr)
        return MISTAKE
    return 0 if verdict.same else DIFFERENT


def _run(path: Path, bundle: Path | None, data: str | None, folder: Path, say: Callable[[str], None]) -> Verdict:
    began = time.perf_counter()
    files, notes = _readable(path)
    first = files[0]
    home = tapes.open_home(bundle, data, first.device, folder) if bundle and data else None
    verdict = Verdict(first.device, home is not None, notes=notes)
    start = first.span[0]
    told = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(first.wall))
    say(f"{first.device}, recorded from {told} UTC by its own clock, on {first.machine}")
    for before, file in pairwise((None, *files)):
        assert file is not None  # noqa: S101  only the first one has none before it
        start = _line_up(before, file, start, say)
        story = Story(start, say)
        with_agent = home
        if home and (fault := tapes.fault(file, home)):
            with_agent, verdict.agent = None, False
            notes.append(f"{file.path.name}: only the conversation is run: {fault}")
        elif home and not file.same_machine:
            notes.append(f"{file.path.name}: recorded on {file.machine}: contents of tensors are not compared")
        verdict.difference = tapes.run(file, with_agent, story)
        story.end()
        verdict.files += 1
        verdict.processes += file.restarted or before is None
        verdict.events += story.events
        verdict.frames += story.frames
        verdict.seconds += file.span[1] - file.span[0]
        if verdict.difference:
            verdict.where = f"{file.path.name}, {_clock(verdict.difference.now - start)}"
            break
    verdict.took = time.perf_counter() - began
    return verdict


def _readable(path: Path) -> tuple[list[Recording], list[str]]:
    """The files that can be run, oldest first, and what is to say of the others."""
    files, notes = [], []
    try:
        places = ring.segments(path)
    except ring.RingError as error:
        raise ReplayError(str(error)) from error
    for place in places:
        try:
            file = read(place)
        except ReplayError as error:
            notes.append(f"left out: {error}")
            continue
        if file.ignored_bytes:
            notes.append(f"{place.name}: the last {file.ignored_bytes} bytes are torn, and ignored")
        files.append(file)
    if not files:
        raise ReplayError("; ".join(notes) or f"there is no recording in {path}")
    return files, notes


def _line_up(before: Recording | None, file: Recording, start: float, say: Callable[[str], None]) -> float:
    """When the recording would have begun by the clock of this file's process."""
    if before is None:
        return start
    if file.instance == before.instance:
        missing = file.span[0] - before.span[1]
        if missing > 2 * SILENCE_SECONDS:
            say(f"{_clock(before.span[1] - start)}  {_length(missing)} are not in the recording")
        return start
    # Another process, perhaps another boot, whose clock began anew: the wall clock is all there is.
    gap = max(0.0, (file.wall - file.span[0]) - (before.wall - before.span[0]) + file.span[0] - before.span[1])
    say(f"{_clock(before.span[1] - start + gap)}  {file.device} starts again, as process {file.instance:08x}")
    return file.span[0] - (before.span[1] - start + gap)


class Story:
    """Tells a recording in words, a line for what a reader wants to know.

    Args:
        start: the device's time at the beginning.
        say: takes the lines.
    """

    def __init__(self, start: float, say: Callable[[str], None]) -> None:
        self.events = 0
        self.frames = 0
        self._start, self._say = start, say
        self._heard: float | None = None
        self._names: dict[int, str] = {}
        self._sent: set[tuple[int, int, int]] = set()
        self._run: tuple[float, int, bool, list[int], int] | None = None
        """Frames that belong together: since when, message, whether again, chunks, of how many."""

    def entry(self, now: float, entry: trace.Entry) -> None:
        """The next entry of the recording."""
        if not isinstance(entry, _QUIET) and entry != trace.Polled(()):
            self.events += 1
        match entry:
            case trace.Polled():
                self._polled(now, entry)
            case trace.Published():
                self._published(now, entry)
            case trace.Put():
                self._names[entry.number] = telling.of_message(entry.message)
                if entry.urgent or not self._names[entry.number].startswith("activation"):
                    self._tell(now, f"message {entry.number} is {self._names[entry.number]}")
            case trace.Dropped():
                self._tell(now, f"no longer kept: {_numbers('message', entry.numbers)}")
            case trace.Cleared():
                self._tell(now, "the hub knows a later stream: all messages get new numbers")
            case trace.Failed():
                self._tell(now, f"a frame did not leave: {entry.reason}")
            case trace.Committed() if entry.reason:
                self._tell(now, f"nothing could be committed: {entry.reason}")

    def arrived(self, now: float, message: WireMessage) -> None:
        """A message from the hub is complete."""
        self._tell(now, f"from the hub: {telling.of(message)}")

    def refused(self, now: float, reason: str) -> None:
        """A frame or message from the hub was not taken."""
        self._tell(now, f"refused from the hub: {reason}")

    def end(self) -> None:
        """Tell what is left."""
        if self._run is None:
            return
        since, number, again, chunks, count = self._run
        self._run = None
        name = self._names.get(number, "put before this file")
        whole = "" if count == 1 else f", in {count} frames"
        parts = whole if len(chunks) == count else f", {_numbers('frame', chunks)} of {count}"
        self._say(f"{_clock(since - self._start)}  message {number} ({name}) sent{' again' if again else ''}{parts}")

    def _polled(self, now: float, entry: trace.Polled) -> None:
        for event in entry.events:
            if isinstance(event, Connected):
                self._tell(now, "connected")
            elif isinstance(event, Disconnected):
                self._tell(now, f"disconnected: {event.reason}")
            elif isinstance(event, Message):
                if self._heard is not None and now - self._heard > SILENCE_SECONDS:
                    self._tell(now, f"first word from the hub after a silence of {_length(now - self._heard)}")
                self._heard = now

    def _published(self, now: float, entry: trace.Published) -> None:
        self.frames += 1
        chunk = telling.chunk_of(entry.payload)
        if chunk is None:
            if telling.asks(entry.payload):
                self._tell(now, "asks the hub what it has")
            return
        key = (chunk.epoch, chunk.number, chunk.index)
        again = key in self._sent
        self._sent.add(key)
        run = self._run
        if run and run[1:3] == (chunk.number, again):
            run[3].append(chunk.index + 1)
        else:
            self.end()
            self._run = (now, chunk.number, again, [chunk.index + 1], chunk.count)

    def _tell(self, now: float, what: str) -> None:
        self.end()
        self._say(f"{_clock(now - self._start)}  {what}")


def _numbers(noun: str, numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"{noun} {numbers[0]}"
    if list(numbers) == list(range(numbers[0], numbers[-1] + 1)):
        return f"{noun}s {numbers[0]} to {numbers[-1]}"
    return f"{noun}s {', '.join(map(str, numbers))}"


def _clock(seconds: float) -> str:
    """As 1:02:03.45, hours in front."""
    minutes, rest = divmod(max(0.0, seconds), 60)
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d}:{rest:05.2f}"


def _length(seconds: float) -> str:
    """As 4.2 s, 3 min 20 s or 1 h 12 min."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _nobody(_line: str) -> None:
    pass


@contextmanager
def _silent() -> Iterator[None]:
    """The device's own log has been written already, where it ran."""
    log = logging.getLogger("cutlayer")
    before = log.level
    log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        log.setLevel(before)
