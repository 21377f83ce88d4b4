"""What is to be measured, and the limits of that."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from edge.refusal import RefusalError
from edge.wire.codec import parse_codec
from edge.wire.frames import WireError
from edge.wire.profile import STAGES

MOST_BATCH = 65536
MOST_THREADS = 64
MOST_SECONDS = 3600.0
SYNTHETIC = "synthetic"
GRAPHS = ("forward", "local", "backward")
"""Stages that are a graph of the bundle."""


@dataclass(frozen=True)
class Asked:
    """What `cutlayer profile` is to measure; a plain value that travels to the measured process as JSON."""

    bundle: str
    """Path."""
    config: str | None = None
    """Path of the device's configuration: its data, threads, meter and broker; without one, samples are made up and nothing is sent."""
    batches: tuple[int, ...] = (32,)
    threads: tuple[int, ...] = (1,)
    codecs: tuple[str, ...] = ("float32", "entropy:1")
    stages: tuple[str, ...] = STAGES
    seconds: float = 3.0
    """Wanted at most for each stage, after its warm-up; a stage whose repetitions are longer has at least a few."""
    precision: float = 0.02
    """A stage is over before where half its interval is at most this share of its median, unless joules are measured."""
    synthetic: bool = False
    """Whether samples are made up although the configuration has data."""
    send_beyond_budget: bool = False
    """Whether `send` is measured although the device has a budget of bytes, which does not count what a profile sends."""

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Of plain values, as `to_json` gave them."""
        plain: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in fields.items()
        }
        return cls(**plain)

    def check(self) -> Self:
        """Itself.

        Raises:
            RefusalError: a number out of its limits, an unknown stage or codec.
        """
        for name, values, most in (("batch", self.batches, MOST_BATCH), ("threads", self.threads, MOST_THREADS)):
            if not values:
                raise RefusalError(f"--{name} names no number")
            for value in values:
                if not 1 <= value <= most:
                    raise RefusalError(f"--{name} {value}: it must be from 1 to {most}")
        if not 0.05 <= self.seconds <= MOST_SECONDS:
            raise RefusalError(f"--seconds {self.seconds:g}: it must be from 0.05 to {MOST_SECONDS:g}")
        if not 0.001 <= self.precision <= 1:
            raise RefusalError(f"--precision {self.precision:g}: it must be from 0.001 to 1")
        unknown = [stage for stage in self.stages if stage not in STAGES]
        if unknown or not self.stages:
            raise RefusalError(f"--stages {', '.join(unknown) or 'without a name'}: there are {', '.join(STAGES)}")
        if not self.codecs:
            raise RefusalError("--codec names no codec")
        for codec in self.codecs:
            try:
                parse_codec(codec)
            except WireError as error:
                raise RefusalError(f"--codec {codec}: {error}") from None
        return self


@dataclass(frozen=True)
class Setting:
    """What one measured process is told: what is asked, for one batch size and number of threads."""

    asked: Asked
    batch: int
    threads: int
    folder: Path
    """Empty, on the disk that the device's state is on: for what the stages write. The process that started this one clears it away."""
    idle_watts: float | None = None
    stages: Sequence[str] = field(default_factory=tuple)

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "asked": self.asked.to_json(),
            "batch": self.batch,
            "threads": self.threads,
            "folder": str(self.folder),
            "idle_watts": self.idle_watts,
            "stages": list(self.stages),
        }

    @classmethod
    def from_json(cls, fields: dict[str, Any]) -> Self:
        """Of plain values, as `to_json` gave them."""
        return cls(
            Asked.from_json(fields["asked"]),
            fields["batch"],
            fields["threads"],
            Path(fields["folder"]),
            fields["idle_watts"],
            tuple(fields["stages"]),
        )
