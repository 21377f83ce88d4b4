"""What a device does beside its work, between two turns of its loop: the process manager hears that it lives, updates are fetched."""

from collections.abc import Callable
from typing import Protocol

from edge.service import Health, Notifier
from edge.side_link import SideLink
from edge.updates import Updater
from edge.wire.updates import State
from edge.work import Work

STATUS_SECONDS = 2.0
"""Between two looks at what the device is at, for the process manager."""


class Worker(Protocol):
    """Who is looked on at; `edge.agent.Agent`."""

    @property
    def work(self) -> Work | None:
        """The order in hand."""


class Beside:
    """All of it, for one process.

    Args:
        link: tells whether the hub has answered.
        notifier: speaks to the process manager.
        health: marks the release as well.
        updater: fetches the next one.
        clock: monotonic seconds.
    """

    def __init__(
        self, link: SideLink, notifier: Notifier, health: Health, updater: Updater, clock: Callable[[], float]
    ) -> None:
        self._link, self._notifier, self._health, self._updater = link, notifier, health, updater
        self._clock = clock
        self._seen: tuple[Work | None, int] = (None, 0)
        self._worked = False
        self._worded_at = -STATUS_SECONDS

    def between(self, stopped: Callable[[], bool], worker: Worker | None = None) -> Callable[[], bool]:
        """`stopped`, which a loop asks between two turns: the moment for this."""

        def asked() -> bool:
            self.turn(worker)
            return stopped()

        return asked

    def turn(self, worker: Worker | None = None) -> None:
        """A turn of the loop is over."""
        now = self._clock()
        work = worker.work if worker else None
        if work:
            self._look(work)
        self._notifier.alive(now)
        self._health.turned(now, worked=self._worked and self._link.answered)
        self._updater.turn(now)
        if self._notifier.present and now - self._worded_at >= STATUS_SECONDS:
            self._worded_at = now
            self._notifier.status(_in_words(work, self._updater.state(), connected=self._link.connected))

    def refused(self) -> None:
        """The hub has answered with a refusal, which says nothing against the release."""
        self._health.answered()

    def _look(self, work: Work) -> None:
        """The last step, where it is a new one."""
        before, count = self._seen
        done = len(work.seconds)
        if work is before and done == count:
            return
        self._seen = work, done
        if not done:
            return
        self._worked = True
        if work.order.kind != "evaluate":
            losses = work.metrics.get("loss")
            self._updater.steps.add(work.seconds[-1], losses[-1] if losses else None)


def _in_words(work: Work | None, state: State, *, connected: bool) -> str:
    at = f"{work.order.kind} of round {work.order.round + 1}" if work else "waiting for the hub"
    parts = [at if connected else f"{at}; no connection"]
    if state.phase == "fetching":
        waits = f", waits for {state.reason}" if state.reason else ""
        parts.append(f"an update is fetched: {100 * state.here // max(1, state.size)} %{waits}")
    elif state.phase in ("ready", "trial"):
        parts.append({"ready": "an update waits for the installer", "trial": "this release is on trial"}[state.phase])
    return "; ".join(parts)
