"""The hub's end of a trial, as a process of its own: broker and hub behind the links.

What happens goes line by line into `events.jsonl`: the owner of the trial shows it live, and the report draws it.
Each line has `time` (seconds since 1970) and `event`: `listening` (`port`), `stage` and `note` (`text`), `device`
(`name`, `state`), `round` (`record`, as it stands in metrics.jsonl).
"""

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NoReturn, TextIO

from hub import config as hub_config
from hub.broker import start_broker
from hub.server import serve

EVENTS = "events.jsonl"
STOPPED = 130


def main() -> None:
    """Serve the run whose configuration, address and facts the only argument has, as JSON."""
    signal.signal(signal.SIGTERM, _interrupt)
    told: dict[str, Any] = json.loads(sys.argv[1])
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    settings = hub_config.load(Path(told["config"]), os.environ)
    folder = settings.run.folder
    try:
        with (
            (folder / EVENTS).open("a", encoding="utf-8") as file,
            start_broker(
                told["broker"], folder / "broker", port=told["port"], address=told["address"], enclosed=told["enclosed"]
            ) as broker,
        ):
            events = Events(file)
            serve(
                settings,
                broker.url,
                events,
                started=lambda: events.say("listening", port=broker.port),
                run_facts=told["facts"],
            )
    except KeyboardInterrupt:
        sys.exit(STOPPED)


class Events:
    """Progress as JSON lines.

    Args:
        file: where to.
        clock: seconds since 1970.
    """

    def __init__(self, file: TextIO, clock: Callable[[], float] = time.time) -> None:
        self._file = file
        self._clock = clock

    def stage(self, text: str) -> None:
        """The run as a whole begins something else."""
        self.say("stage", text=text)

    def device(self, name: str, state: str) -> None:
        """A device is in another state."""
        self.say("device", name=name, state=state)

    def round(self, record: Mapping[str, Any]) -> None:
        """A round has ended."""
        self.say("round", record=dict(record))

    def note(self, text: str) -> None:
        """Something to tell."""
        self.say("note", text=text)

    def say(self, event: str, **content: Any) -> None:
        """Write one line."""
        self._file.write(json.dumps({"time": round(self._clock(), 3), "event": event, **content}) + "\n")
        self._file.flush()


def _interrupt(*_signal: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
