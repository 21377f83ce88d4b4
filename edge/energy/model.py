"""A model that was fitted against a meter, as a source of joules: used where the configuration names it, and never else.

    watts = idle + joules a CPU second · CPU seconds a second + joules a byte · bytes a second

Its file is JSON, written by `calibrate` (edge/energy/calibrate.py): the coefficients, what the fit left over, when it was made,
against which meter, and on which board.
"""

import dataclasses
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edge.energy.activity import TICKS, Activity, activity
from edge.energy.measure import Kind
from edge.files import Files, UnreadableError

FORMAT = 1
MODEL_SECONDS = 10.0


@dataclass(frozen=True)
class Model:
    """What a board takes. A coefficient is None where the windows of the fit could not tell it."""

    idle_watts: float
    joules_per_cpu_second: float
    joules_per_byte_sent: float | None
    joules_per_byte_received: float | None
    rms_watts: float
    """Root of the mean square of what was left over, by degrees of freedom."""
    residual_percent: float
    """The same in percent of the mean power of the windows."""
    windows: int
    meter: str
    """What it was fitted against, with its class."""
    date: str
    """ISO 8601, UTC."""
    board: dict[str, Any] = field(default_factory=dict)
    """Record of the board it was fitted on."""

    def joules(self, seconds: float, cpu_seconds: float, sent_bytes: float = 0, received_bytes: float = 0) -> float:
        """What such a stretch of work is expected to take of the board."""
        return (
            self.idle_watts * seconds
            + self.joules_per_cpu_second * cpu_seconds
            + (self.joules_per_byte_sent or 0.0) * sent_bytes
            + (self.joules_per_byte_received or 0.0) * received_bytes
        )

    @property
    def name(self) -> str:
        """As it stands beside figures."""
        blind = " (bytes not fitted)" if self.joules_per_byte_sent is None else ""
        return f"model of {self.date[:10]}, residual {self.residual_percent:.2g} %{blind}, against {self.meter}"

    def save(self, path: Path) -> None:
        """Writes the file."""
        path.write_text(json.dumps({"format": FORMAT, **dataclasses.asdict(self)}, indent=2) + "\n", encoding="utf-8")


def load(path: Path) -> Model:
    """Reads the file of a model; raises UnreadableError saying what is wrong with it."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except PermissionError:
        raise UnreadableError(f"model {path} wants read permission for the user that runs cutlayer") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UnreadableError(f"model {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except json.JSONDecodeError as error:
        raise UnreadableError(f"model {path} is not JSON: {error}") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        found = record.get("format") if isinstance(record, dict) else None
        raise UnreadableError(
            f"model {path} has format {found}; this release reads format {FORMAT}: calibrate it again here"
        )
    names = {entry.name for entry in dataclasses.fields(Model)}
    if problem := next(_problems(record, names), None):
        raise UnreadableError(f"model {path}: {problem}")
    return Model(**{name: record[name] for name in names})


def _problems(record: dict[str, Any], names: set[str]) -> Iterator[str]:
    for name in sorted(names - record.keys()):
        yield f"{name} is missing"
    for name in ("idle_watts", "joules_per_cpu_second", "rms_watts", "residual_percent"):
        if not _is_amount(record.get(name)):
            yield f"{name} = {record.get(name)!r} is not a number from 0"
    for name in ("joules_per_byte_sent", "joules_per_byte_received"):
        if record.get(name) is not None and not _is_amount(record[name]):
            yield f"{name} = {record[name]!r} is neither null nor a number from 0"
    for name, kind in (("meter", str), ("date", str), ("board", dict), ("windows", int)):
        if not isinstance(record.get(name), kind):
            yield f"{name} = {record.get(name)!r} is no {kind.__name__}"


def _is_amount(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < math.inf


class Modelled:
    """Joules by a model, from what the whole board does.

    Raises:
        UnreadableError: the model was fitted on a board of another name, or the board's activity cannot be read.
    """

    kind: Kind = "modelled"
    seconds_between = MODEL_SECONDS  # sums miss nothing
    refresh_seconds = 1 / TICKS
    unseen = 0.0

    def __init__(self, model: Model, files: Files, board: str | None = None) -> None:
        fitted = model.board.get("model")
        if fitted and board and fitted != board:
            raise UnreadableError(f"the model was fitted on {fitted}, this is {board}: calibrate it here")
        self.name = model.name
        self.model = model
        self._files = files
        self._last: Activity | None = None
        activity(files)

    def joules_since(self, seconds: float) -> float:
        """Reads what the board did since; returns what that is expected to have taken."""
        now = activity(self._files)
        before, self._last = self._last, now
        if before is None:
            return 0.0
        did = (
            now.cpu_seconds - before.cpu_seconds,
            now.sent_bytes - before.sent_bytes,
            now.received_bytes - before.received_bytes,
        )
        if min(did) < 0:
            raise UnreadableError("the board's sums of CPU time and bytes went back: an interface has gone")
        return self.model.joules(seconds, *did)

    def sigma(self, joules: float, seconds: float) -> float:  # noqa: ARG002  the protocol's
        """What the fit left over lies the same way all along; and a tick of CPU time at both ends."""
        return math.hypot(self.model.rms_watts * seconds, self.model.joules_per_cpu_second / TICKS / math.sqrt(6))

    def restart(self) -> None:
        """Forgets the last sums."""
        self._last = None

    def close(self) -> None:
        """Nothing is open."""
