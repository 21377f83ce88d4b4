"""Asks devices what a step costs on their boards, and puts down what they answer; each is asked once, and again after it has come anew.

So many are asked at a time (`window`): answers of hundreds of devices at once would be more than a broker holds for the hub. What else arrives meanwhile is not the survey's: `others` decides about it.
"""

import logging
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from edge.wire.inquiry import LIMIT_SECONDS, Answer, Inquiry
from edge.wire.profile import Profile, ProfileError
from hub.devices import Arrived, Devices, Happening, Joined, Left, Returned
from hub.profile.window import AT_ONCE, Window
from hub.store import StoreError

log = logging.getLogger("cutlayer.hub")

POLL_SECONDS = 0.2
LAST_WORDS_SECONDS = 2.0
"""For the last acknowledgements: a device that lacks one would answer the next hub, too."""


@dataclass(frozen=True)
class Question:
    """What is asked of every device; an empty list leaves the choice to it."""

    batches: tuple[int, ...] = ()
    threads: tuple[int, ...] = ()
    codecs: tuple[str, ...] = ()
    seconds: float = 3.0
    """To measure each stage for."""

    @property
    def turn_seconds(self) -> float:
        """How long a device that works on the answer keeps others from being asked: far longer than the stages of all settings last."""
        return max(60.0, 100.0 * self.seconds * max(1, len(self.batches)) * max(1, len(self.threads)))


@dataclass(frozen=True)
class Patience:
    """How long devices are waited for, in seconds."""

    come: float
    """Until they are there."""
    answer: float
    """Until all have answered, from the beginning."""


class Survey:
    """One question to a fleet.

    Args:
        devices: the hub's correspondence with them.
        question: what is asked.
        number: of the inquiry, drawn for this survey.
        patience: how long they are waited for.
        expected: how many are to come, where no names are given.
        names: who is asked; none: whoever comes.
        keep: called with a device's name and the text of its profile, before that is acknowledged.
        others: called with what else arrives.
        now: monotonic seconds.
        say: told a device's name and how it stands.
        at_once: how many measure at a time.
    """

    def __init__(
        self,
        devices: Devices,
        question: Question,
        number: int,
        patience: Patience,
        *,
        expected: int,
        names: Collection[str] = (),
        keep: Callable[[str, str], None],
        others: Callable[[Arrived], None] = lambda _arrived: None,
        now: Callable[[], float] = time.monotonic,
        say: Callable[[str, str], None] = lambda _name, _state: None,
        at_once: int = AT_ONCE,
    ) -> None:
        self.found: dict[str, Profile] = {}
        """The profiles that came, by device."""
        self.missing: dict[str, str] = {}
        """Why there is none of the other devices."""
        self._devices = devices
        self._question = question
        self._number = number
        self._patience = patience
        self._expected = expected
        self._names = frozenset(names)
        self._keep = keep
        self._others = others
        self._now = now
        self._say = say
        self._began = now()
        self._window = Window(at_once, question.turn_seconds)

    def run(self) -> None:
        """Ask those who are there and those who come, until all have answered or the patience is over."""
        for name in self._devices.online():
            self._want(name)
        while not self._over():
            self._pump(POLL_SECONDS)
        until = self._now() + LAST_WORDS_SECONDS
        while not self._devices.idle() and self._now() < until:
            self._pump(POLL_SECONDS / 4)
        self._pump(POLL_SECONDS)  # an acknowledgement waits a moment for others

    def _pump(self, seconds: float) -> None:
        for happening in self._devices.poll(seconds, self._now()):
            self._take(happening)
        for name in self._window.take(self._now()):
            self._ask(name)

    def _take(self, happening: Happening) -> None:
        match happening:
            case Joined(device=name):
                self._want(name)
            case Returned(device=name) if self._open(name):
                self._window.returned(name)
                self._say(name, "is back")
            case Left(device=name) if self._open(name):
                self._window.left(name)
                self._say(name, "is offline; it is waited for")
            case Arrived(message=Answer() as answer) if answer.number == self._number:
                self._put_down(happening.device, answer)
                self._devices.done(happening)
            case Arrived(message=Answer()):
                self._devices.done(happening)  # to a hub that is gone
            case Arrived():
                self._others(happening)

    def _open(self, name: str) -> bool:
        asked = not self._names or name in self._names
        return asked and name not in self.found and name not in self.missing

    def _want(self, name: str) -> None:
        if self._open(name):
            self._window.wants(name)

    def _ask(self, name: str) -> None:
        low, high = LIMIT_SECONDS
        left = self._began + self._patience.answer - self._now()
        asked = self._question
        # A device that knows the number has the question already.
        inquiry = Inquiry(
            self._number,
            asked.batches,
            asked.threads,
            asked.codecs,
            asked.seconds,
            limit_seconds=min(high, max(low, left)),
        )
        self._devices.send(name, inquiry)
        self._say(name, "is asked")

    def _put_down(self, name: str, answer: Answer) -> None:
        if not self._open(name):
            return
        if answer.reason:
            self._miss(name, answer.reason)
            return
        try:
            profile = Profile.parse(answer.text)
        except ProfileError as error:
            self._miss(name, f"its profile cannot be used: {error}")
            return
        self._keep(name, answer.text)
        self.found[name] = profile
        self._window.done(name)
        self._say(name, "has answered")

    def _miss(self, name: str, reason: str) -> None:
        self.missing[name] = reason
        self._window.done(name)
        self._say(name, f"has no profile: {reason}")

    def _over(self) -> bool:
        spent = self._now() - self._began
        met = self._devices.met()
        if spent >= self._patience.answer:
            for name in filter(self._open, {*met, *self._names}):
                waited = (
                    f"its turn did not come within {self._patience.answer:g} s: {self._window.at_once} are asked at a time"
                    if self._window.waits(name)
                    else f"no answer within {self._patience.answer:g} s"
                )
                self._miss(name, self._why(name, waited))
            return True
        come = self._names <= {*met, *self.missing} if self._names else len(met) >= self._expected
        if not come and spent >= self._patience.come:
            for name in filter(self._open, self._names - {*met}):
                self._miss(name, self._why(name, f"it did not come within {self._patience.come:g} s"))
            come = True
        return come and not any(self._open(name) for name in met)

    def _why(self, name: str, reason: str) -> str:
        """The reason, or why the device was refused when it came."""
        device = self._devices.known.get(name)
        return next(iter(device.refused)) if device and not device.hello and device.refused else reason


def keep_profile(folder: Path, name: str, text: str) -> None:
    """Write a device's profile into a folder, which is made.

    Raises:
        StoreError: it cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.json").write_text(text, "utf-8")
    except OSError as error:
        raise StoreError(f"the profile of {name} cannot be kept in {folder}: {error.strerror or error}") from error
