"""Bulk waits here until the kernel has sent nearly all that it was given: what comes later and is urgent overtakes it."""

import threading
from collections import deque
from collections.abc import Callable

__all__ = ["SlowLane"]

LOOK_SECONDS = 0.25
"""Longest wait for a pipe that takes nothing before the lane looks whether it is still wanted."""


class SlowLane:
    """Payloads on their way to a pipe, in order, one at a time, from a thread of its own. A pipe that breaks loses them.

    Args:
        ready: waits at most so many seconds; tells whether the pipe has sent nearly all that it was given.
        hand_over: gives the pipe one payload for a topic, and waits at most so many seconds until it is taken.
    """

    def __init__(self, ready: Callable[[float], bool], hand_over: Callable[[str, bytes, float], None]) -> None:
        self._ready, self._hand_over = ready, hand_over
        self._waiting: deque[tuple[str, bytes]] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread: threading.Thread | None = None

    def put(self, topic: str, payload: bytes) -> None:
        """Take a payload in."""
        with self._changed:
            if self._closed:
                return
            self._waiting.append((topic, payload))
            self._changed.notify()
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="slow lane", daemon=True)
                self._thread.start()

    def clear(self) -> None:
        """The pipe is broken, and what has not left is lost."""
        with self._changed:
            self._waiting.clear()

    def close(self) -> None:
        """Take nothing in any more."""
        with self._changed:
            self._closed = True
            self._waiting.clear()
            self._changed.notify()

    def _run(self) -> None:
        while self._wait():
            if self._ready(LOOK_SECONDS) and (item := self._next()):
                self._hand_over(*item, LOOK_SECONDS)

    def _wait(self) -> bool:
        """Until there is a payload; False at the end."""
        with self._changed:
            while not (self._waiting or self._closed):
                self._changed.wait()
            return not self._closed

    def _next(self) -> tuple[str, bytes] | None:
        with self._changed:
            return self._waiting.popleft() if self._waiting else None
