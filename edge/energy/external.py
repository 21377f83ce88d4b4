"""An external meter that says `time watts`, a line each (edge/energy/README.md), as a source of joules.

Its lines are integrated by their own times, which no wait in between can blur. Where a window begins or ends between two lines,
the last power is taken to hold, and what was taken too much or too little is put right by the next line. The meter's clock
is tied to ours by the line that came through fastest; the tie gives way slowly, since no two clocks run alike.
"""

import math
import time
from collections.abc import Callable

from edge.energy.measure import Kind
from edge.energy.ports import Port, open_port
from edge.energy.source import SPREAD, credible
from edge.files import UnreadableError

FIRST_SECONDS = 5.0
"""How long the first two lines may take, when the meter is opened: the first that is heard may be the rest of one."""
SILENT_SECONDS = 5.0
"""After so long without a line nothing is known of the power."""
AGAIN_SECONDS = 10.0
"""Between two attempts to open a meter again that has gone."""
LINE_BYTES = 200
DRIFT = 2e-4
"""How far the two clocks may run apart, seconds a second."""
POLL_SECONDS = 0.01


class ExternalMeter:
    """Hears an external meter.

    Args:
        address: see `edge.energy.ports`.
        seconds_between: how often to look for lines.
        now: our clock, in seconds.
        sleep: waits for the first line.
        open_port: opens the address.

    Raises:
        UnreadableError: it cannot be opened, or says nothing.
    """

    kind: Kind = "metered"

    def __init__(
        self,
        address: str,
        seconds_between: float = 0.1,
        *,
        now: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        open_port: Callable[[str], Port] = open_port,
    ) -> None:
        self.name = f"meter at {address}"
        self.seconds_between = seconds_between
        self.refresh_seconds = 0.0  # until the first two lines tell
        self.unseen = 0.0
        self._address, self._now, self._open = address, now, open_port
        self._step_watts = 0.0
        self._port: Port | None = open_port(address)
        self._tried = now()
        self._last: tuple[float, float] | None = None
        """Time, by the meter's clock, and watts of the last line."""
        self._told: float | None = None
        """The sum, when it was asked last."""
        self._forget()
        try:
            self._await_first(sleep)
        except UnreadableError:
            self.close()
            raise

    def _await_first(self, sleep: Callable[[float], None]) -> None:
        for _ in range(math.ceil(FIRST_SECONDS / POLL_SECONDS)):
            if self._hear():
                return
            sleep(POLL_SECONDS)
        raise UnreadableError(f"{self.name} said nothing in {FIRST_SECONDS:g} s")

    def joules_since(self, seconds: float) -> float:  # noqa: ARG002  the meter's own times count
        """Hears what came; returns what the sum is more than when it was asked last."""
        try:
            known = self._hear()
        except UnreadableError:
            self._forget()
            raise
        now = self._now()
        if not known or self._last is None:
            raise UnreadableError(f"{self.name} has not said anything yet")
        time, watts = self._last
        age = now - self._offset - time
        if age > SILENT_SECONDS:
            raise UnreadableError(f"{self.name} has been silent for {age:.1f} s")
        total = self._sum + watts * max(0.0, age)
        before, self._told = self._told, total
        return 0.0 if before is None else total - before

    def sigma(self, joules: float, seconds: float) -> float:  # noqa: ARG002  the protocol's
        """One step of the watts as they are written, all along, and at both ends a usual swing over the time of one line."""
        swing = math.sqrt(2) * self._swing * self.refresh_seconds
        return SPREAD * math.hypot(self._step_watts * seconds, swing)

    def restart(self) -> None:
        """Forgets where the sum stood; the lines go on."""
        self._told = None

    def close(self) -> None:
        """Closes the port."""
        if self._port is not None:
            self._port.close()
            self._port = None

    def _forget(self) -> None:
        self._rest = b""
        self._aligned = False
        self._swing = 0.0
        self._last = self._told = None
        self._offset = math.inf
        self._heard = self._now()
        self._sum = 0.0

    def _hear(self) -> bool:
        """Takes in what came; returns whether a power is known."""
        now = self._now()
        if self._port is None:
            if now - self._tried < AGAIN_SECONDS:
                raise UnreadableError(f"{self.name} has gone")
            self._tried = now
            self._port = self._open(self._address)
        try:
            data = self._rest + self._port.read()
        except UnreadableError:
            self.close()
            self._tried = now
            raise
        *lines, self._rest = data.split(b"\n")
        if len(self._rest) > LINE_BYTES:
            self._rest = b""
            raise UnreadableError(f"{self.name} sends lines longer than {LINE_BYTES} bytes")
        self._offset += DRIFT * (now - self._heard)
        self._heard = now
        for line in lines:
            # The port may have been opened in the middle of the first.
            if self._aligned:
                self._take(line, now)
            self._aligned = True
        return self._last is not None

    def _take(self, line: bytes, now: float) -> None:
        words = line.split()
        if not words or line.startswith(b"#"):
            return
        try:
            time, watts = (float(word) for word in words)
        except ValueError:
            raise UnreadableError(f"{self.name} says {line[:40]!r}, not `time watts`") from None
        credible(watts, self.name)
        self._step_watts = max(1e-6, 10.0 ** -len(words[1].partition(b".")[2]))
        if self._last is not None:
            self._add(*self._last, time, watts)
        self._last = (time, watts)
        self._offset = min(self._offset, now - time)

    def _add(self, before: float, from_watts: float, time: float, watts: float) -> None:
        seconds = time - before
        if not 0 <= seconds <= SILENT_SECONDS:  # nor does "nan" pass
            raise UnreadableError(f"{self.name} jumped in time from {before:.6g} s to {time:.6g} s")
        self._sum += (from_watts + watts) / 2 * seconds
        self.unseen += (SPREAD * (watts - from_watts) * seconds) ** 2
        # As they are of late.
        share = 0.1 if self.refresh_seconds else 1.0
        self.refresh_seconds += (seconds - self.refresh_seconds) * share
        self._swing += (abs(watts - from_watts) - self._swing) * share
