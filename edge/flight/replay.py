"""Runs a recording of `edge/flight/recorder.py` again: the same code, fed with what the device saw, compared with what it did.

Two ways, by what is at hand:

* the *agent*: with the bundle and the data, everything is done again, training included;
* the *conversation*: without them, the mailbox and its delivery. What the agent put into the mailbox is taken from the
  recording, long messages as zeros of their length; of their frames all numbers are compared, not the contents.

Time is what the recording says, so nothing waits. Figures that were measured (bytes of sockets, seconds, joules) are
taken from the recorded reports.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from edge import sensors
from edge.agent import Agent
from edge.bundle import Bundle, BundleError
from edge.bundle import load as load_bundle
from edge.config import BrokerConfig, BundleConfig, DataConfig, DeviceConfig, IdentityConfig, RunConfig
from edge.energy import Energy
from edge.flight.freeze import FreezeError, Thawer
from edge.flight.recorder import CLASSES
from edge.flight.recording import Recording, ReplayError
from edge.flight.tape import Difference, Differs, End, Tape, TapeLink, TapeMailbox, TapeOutbox, Watcher
from edge.flight.tape_inquiries import TapeInquiries
from edge.flight.tape_purse import TapePurse
from edge.meters import Measurement, Temperature
from edge.outbox import OutboxError
from edge.refusal import RefusalError
from edge.segment import Segment, SegmentError

E = TypeVar("E")


@dataclass(frozen=True)
class Home:
    """What of the device is at hand for a replay of its agent."""

    bundle: Bundle
    source: sensors.Source


def open_home(bundle: Path, data: str, device: str, state_directory: Path) -> Home:
    """A device's bundle and data.

    Args:
        bundle: as the device had it.
        data: as `[data] source` names it.
        device: its name, on which its batches depend.
        state_directory: where a folder of growing data remembers its pieces.

    Raises:
        ReplayError: the bundle or the data cannot be used.
    """
    config = DeviceConfig(
        IdentityConfig(device, state_directory),
        BrokerConfig("mqtt://nowhere"),
        BundleConfig(bundle),
        DataConfig(data, only_tested=True),
        RunConfig(),
    )
    try:
        loaded = load_bundle(bundle)
        manifest = loaded.manifest
        return Home(loaded, sensors.open_source(config, manifest.input.shape, manifest.input.dtype, manifest.classes))
    except (BundleError, sensors.SensorError) as error:
        raise ReplayError(str(error)) from error


def run(recording: Recording, home: Home | None, watcher: Watcher) -> Difference | None:
    """Run one file again; with what is at hand of the device its whole agent, else its conversation.

    Raises:
        ReplayError: the snapshot is damaged, or has not what this way needs (see `fault`).
    """
    left_out = any(not kept for _, kept in recording.record["blobs"])
    tape = Tape(recording, watcher, zeros=home is None or left_out)
    try:
        if home:
            _run_agent(recording, home, tape)
        else:
            _run_conversation(recording, tape)
    except Differs as found:
        return found.difference
    except RefusalError as error:
        return tape.end(f"the end: {error}")
    except (FreezeError, SegmentError, sensors.SensorError) as error:
        raise ReplayError(f"{recording.path}: {error}") from error
    except End:
        pass
    return None


def fault(recording: Recording, home: Home) -> str | None:
    """Why the agent cannot be run again, or None."""
    wanted = recording.record["rows"].get("facts", {"list": []})["list"]
    facts = dict(pair["tuple"] for pair in wanted)
    bundle = json.loads(facts.get("bundle", "null"))
    if bundle not in (None, home.bundle.id):
        return f"the device had bundle {bundle[:8]}, this is {home.bundle.id[:8]}"
    return "its state did not fit the recording" if recording.record["state"] is None else None


class _NoMeter:
    """Measures nothing: reports have what was measured."""

    def begin(self, window: str) -> None:
        """Nothing."""

    def end(self, window: str) -> Measurement:
        """Nothing."""
        nothing = Energy(reason="not measured in a replay")
        return Measurement(window, 0.0, 0.0, 0, "", 0, None, Temperature(), nothing)


def _run_agent(recording: Recording, home: Home, tape: Tape) -> None:
    classes = {**CLASSES, "Mailbox": TapeMailbox, "Agent": _Agent}
    outbox = TapeOutbox(recording, Thawer(classes, recording.blobs, {}), tape, strict=True)
    segment = Segment(home.bundle)
    inquiries = TapeInquiries(recording, tape, outbox)
    parts = {
        "_bundle": home.bundle,
        "_segment": segment,
        "_source": home.source,
        "_meter": _NoMeter(),
        "_link": TapeLink(tape),
        "_outbox": outbox,
        "_purse": TapePurse(tape, outbox),
        "_inquiries": inquiries,
        "waiting": _WAITING,
    }
    thawer = Thawer(classes, recording.blobs, parts)
    agent = thawer.thaw(recording.record["agent"])
    if not isinstance(agent, _Agent):
        raise FreezeError(f"{recording.path}: the snapshot has no agent")
    segment.restore(thawer.thaw(recording.record["state"]))
    agent.wake(tape, inquiries)
    while True:
        agent.turn(tape.clock)


class _Agent(Agent):
    """The agent of a snapshot."""

    def wake(self, tape: Tape, inquiries: TapeInquiries) -> None:
        """Make again what a snapshot leaves out."""
        inquiries.mailbox = self._mailbox
        if isinstance(self._mailbox, TapeMailbox):
            self._mailbox.tape = tape
        if self._work is not None and self._work.waiting is _WAITING:
            self._work.waiting = self._batch(self._work)

    def _commit(self) -> bool:
        try:
            self._mailbox.commit()
        except OutboxError:
            return False  # without the wait for the disk
        return True


_WAITING: Any = object()
"""In the place of a batch that waits for its gradient: the source gives it again."""


def _run_conversation(recording: Recording, tape: Tape) -> None:
    classes = {**CLASSES, "Mailbox": TapeMailbox}
    outbox = TapeOutbox(recording, Thawer(classes, recording.blobs, {}), tape, strict=False)
    parts = {"_link": TapeLink(tape), "_outbox": outbox}
    mailbox = Thawer(classes, recording.blobs, parts).thaw(recording.record["agent"]["has"]["_mailbox"])
    if not isinstance(mailbox, TapeMailbox):
        raise FreezeError(f"{recording.path}: the snapshot has no mailbox")
    mailbox.tape = tape
    while True:
        _turn(mailbox, tape)


def _turn(mailbox: TapeMailbox, tape: Tape) -> None:
    """A turn of the agent, whose decisions are read from the recording: the same calls in the same order."""
    tape.clock()
    mailbox.act()
    for _ in mailbox.poll(0.0, tape.clock()):
        mailbox.act()
    mailbox.act()
    try:
        mailbox.commit()
    except OutboxError:
        return
    mailbox.publish(tape.clock())
