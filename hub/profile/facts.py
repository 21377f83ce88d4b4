"""Board and conditions in words, a line a fact and a column a profile; what a profile does not say is "not recorded"."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from edge.wire.profile import Profile
from hub.profile.read import Shown, board_memory, items, number, plain, words
from hub.table import figure, human

NOT_RECORDED = "not recorded"
MOST_SAMPLING, MOST_BUSY = 0.01, 0.05
"""Shares of a core and of the processors from which on they are said as a warning."""


@dataclass(frozen=True)
class Fact:
    """A text of a profile; `known` is False where it only says that there is none."""

    text: str
    known: bool = True
    warn: bool = False


MISSING = Fact(NOT_RECORDED, known=False)
Say = Callable[[Profile], Fact]


def board(shown: Sequence[Shown]) -> list[tuple[str, list[Fact]]]:
    """What was measured on."""
    return _table(BOARD, shown)


def conditions(shown: Sequence[Shown]) -> list[tuple[str, list[Fact]]]:
    """How and with what it was measured; lines on which no profile has anything are left out where cuts wrote them all."""
    spoken = [one for one in shown if one.profile.conditions]
    return _table(CONDITIONS, shown) if spoken else []


def slowed(profile: Profile) -> str:
    """What slowed the board down meanwhile, as the board says; empty where nothing is known to have."""
    return plain(words(profile.conditions, "slowed"), 200)


def cautions(profile: Profile) -> list[str]:
    """What else makes the times less sure than they look, in sentences."""
    found = []
    share = number(profile.conditions, "busy_share")
    if share is not None and share > MOST_BUSY:
        found.append(f"others took {100 * share:.0f} % of the processors' time meanwhile")
    drifts = len(items(profile.conditions, "drifts"))
    if drifts:
        stages = "a stage was" if drifts == 1 else f"{drifts} stages were"
        found.append(f"{stages} slower in the last third than in the first")
    return found


def date(profile: Profile) -> str:
    """When it was measured, or an empty text."""
    text = words(profile.conditions, "date")
    try:
        return datetime.fromisoformat(text).strftime("%Y-%m-%d %H:%M %Z").strip()
    except ValueError:
        return plain(text, 30)


def threads_of(number_of_threads: int) -> str:
    """Such as "2 threads"."""
    return f"{number_of_threads} thread{'' if number_of_threads == 1 else 's'}"


def _table(lines: Mapping[str, Say], shown: Sequence[Shown]) -> list[tuple[str, list[Fact]]]:
    return [(name, [say(one.profile) for one in shown]) for name, say in lines.items()]


def _of_board(*keys: str) -> Say:
    def say(profile: Profile) -> Fact:
        found = (profile.board.get(key) for key in keys)
        text = next((plain(value, 200) for value in found if isinstance(value, str | int | float) and value), "")
        return Fact(text) if text else MISSING

    return say


def _of_conditions(key: str, longest: int = 200) -> Say:
    def say(profile: Profile) -> Fact:
        text = plain(words(profile.conditions, key), longest)
        return Fact(text) if text else MISSING

    return say


def _clocks(profile: Profile) -> Fact:
    clocks = [clock for clock in items(profile.board, "clocks") if isinstance(clock, Mapping)]
    return Fact("; ".join(map(_clock, clocks))) if clocks else MISSING


def _clock(clock: Mapping[str, Any]) -> str:
    low, high, now = (number(clock, f"{name}_hertz") for name in ("minimum", "maximum", "now"))
    most = number(clock, "hardware_maximum_hertz")
    text = f"cores {plain(clock.get('cores') or '?')}: "
    text += f"{_hertz(low)} to {_hertz(high)}" if high else "limits not known"
    text += f", the chip can {_hertz(most)}" if most and high and most > high else ""
    text += f", governor {plain(words(clock, 'governor')) or 'not known'}"
    return text + (f", {_hertz(now)} before" if now else "")


def _hertz(value: float | None) -> str:
    if value is None:
        return "?"
    return f"{figure(value / 1e9)} GHz" if value >= 1e9 else f"{figure(value / 1e6)} MHz"


def _memory(profile: Profile) -> Fact:
    total = board_memory(profile)
    return Fact(human(total, "memory")) if total else MISSING


def _providers(profile: Profile) -> Fact:
    names = [plain(name) for name in items(profile.board, "providers")]
    return Fact(", ".join(names)) if names else MISSING


def _measured(profile: Profile) -> Fact:
    text = date(profile)
    return Fact(text) if text else MISSING


def _bundle(profile: Profile) -> Fact:
    text = words(profile.conditions, "bundle")
    return Fact(plain(text[:12])) if text else MISSING


def _flops(profile: Profile) -> Fact:
    found = profile.conditions.get("flops")
    if not isinstance(found, Mapping):
        return MISSING
    known = [(plain(kind), number(found, kind)) for kind in found]
    text = ", ".join(f"{kind} {_count(value)}" for kind, value in known if value is not None)
    return Fact(f"modelled: {text}") if text else MISSING


def _count(value: float) -> str:
    size, unit = next(((s, u) for s, u in ((1e9, " G"), (1e6, " M"), (1e3, " k")) if value >= s), (1.0, ""))
    return f"{figure(value / size)}{unit}"


def _wanted(profile: Profile) -> Fact:
    sure, half, seconds = (number(profile.conditions, key) for key in ("confidence", "precision", "seconds"))
    parts = [f"intervals hold the median with {100 * sure:g} % confidence" if sure else ""]
    parts.append(f"wanted ±{100 * half:g} % of the median" if half else "")
    parts.append(f"{figure(seconds)} s a stage" if seconds else "")
    text = ", ".join(filter(None, parts))
    return Fact(text) if text else MISSING


def _temperature(profile: Profile) -> Fact:
    told = profile.conditions
    before, after = (number(told, f"thermal_{when}", "temperature", "celsius") for when in ("before", "after"))
    if before is None and after is None:
        reason = words(told, "thermal_before", "temperature", "reason")
        return Fact(f"not known: {plain(reason, 200)}", known=False) if reason else MISSING
    source = words(told, "thermal_before", "temperature", "source") or words(
        told, "thermal_after", "temperature", "source"
    )
    text = f"{_celsius(before)} before, {_celsius(after)} after"
    return Fact(text + (f" (sensor: {plain(source, 120)})" if source else ""))


def _celsius(value: float | None) -> str:
    return "not known" if value is None else f"{value:.1f} °C"


def _slowed(profile: Profile) -> Fact:
    if text := slowed(profile):
        return Fact(text, warn=True)
    told = profile.conditions.get("thermal_after")
    if not isinstance(told, Mapping) or "slowed" not in profile.conditions:
        return MISSING
    source = plain(words(told, "flags_source"), 160)
    if told.get("flags") is None and number(told, "throttle_count") is None:
        return Fact(f"nothing is seen, but the board has no flags for it{f': {source}' if source else ''}", known=False)
    return Fact("nothing" + (f" ({source})" if told.get("flags") is not None and source else " (throttle counters)"))


def _drifts(profile: Profile) -> Fact:
    if "drifts" not in profile.conditions:
        return MISSING
    found = []
    for one in items(profile.conditions, "drifts"):
        batch, threads, ratio = (number(one, name) for name in ("batch", "threads", "ratio"))
        if batch is not None and threads is not None and ratio is not None:
            name = plain(f"{words(one, 'stage')} {words(one, 'codec')}", 32)
            found.append(f"{name} (batch {batch:g}, {threads_of(int(threads))}) {figure(ratio)} times")
    return Fact(", ".join(found), warn=True) if found else Fact("nothing")


def _since_start(profile: Profile) -> Fact:
    told = profile.conditions.get("thermal_after")
    if not isinstance(told, Mapping) or told.get("since_start") is None:
        return MISSING
    return Fact(", ".join(plain(flag) for flag in items(told, "since_start")) or "nothing")


def _busy(profile: Profile) -> Fact:
    share = number(profile.conditions, "busy_share")
    if share is None:
        return MISSING if not profile.conditions else Fact("not known", known=False)
    return Fact(f"{100 * share:.1f} % of the processors' time was taken by others", warn=share > MOST_BUSY)


def _energy(profile: Profile) -> Fact:
    if text := plain(words(profile.conditions, "energy"), 200):
        return Fact(text)
    reason = plain(words(profile.conditions, "energy_missing"), 240)
    return Fact(f"none: {reason}", known=False) if reason else MISSING


def _idle(profile: Profile) -> Fact:
    told = profile.conditions.get("idle")
    joules, seconds = number(told, "joules"), number(told, "seconds")
    if joules is None or not seconds:
        reason = plain(words(told, "reason") or words(profile.conditions, "energy_missing"), 200)
        return Fact(f"not known: {reason}", known=False) if reason else MISSING
    unsure = number(told, "uncertainty_joules")
    text = f"{figure(joules / seconds)} W" + (f" ± {figure(unsure / seconds)} W" if unsure is not None else "")
    return Fact(f"{text} over {figure(seconds)} s ({plain(words(told, 'kind')) or 'class not recorded'})")


def _sampling(profile: Profile) -> Fact:
    share = number(profile.conditions, "sampling_share")
    if share is None:
        return MISSING
    return Fact(f"{100 * share:.2f} % of one core (wanted: less than 1 %)", warn=share >= MOST_SAMPLING)


def _unit(profile: Profile) -> Fact:
    if "unit" not in profile.conditions:
        return MISSING
    return Fact(plain(words(profile.conditions, "unit")) or "none: what ran the profile itself")


BOARD: dict[str, Say] = {
    "model": _of_board("model"),
    "SoC": _of_board("soc"),
    "processor": _of_board("cpu"),
    "architecture": _of_board("machine", "architecture"),
    "cores": _of_board("cores"),
    "clock": _clocks,
    "memory": _memory,
    "kernel": _of_board("kernel"),
    "system": _of_board("system"),
    "Python": _of_board("python"),
    "onnxruntime": _of_board("onnxruntime"),
    "execution providers": _providers,
}

CONDITIONS: dict[str, Say] = {
    "measured": _measured,
    "cutlayer": _of_conditions("cutlayer"),
    "bundle": _bundle,
    "model": _of_conditions("model"),
    "cut after": _of_conditions("cut"),
    "objective": _of_conditions("objective"),
    "optimizer": _of_conditions("optimizer"),
    "data": _of_conditions("data"),
    "multiply-adds a sample": _flops,
    "how sure": _wanted,
    "temperature": _temperature,
    "slowed down by": _slowed,
    "slower in its last third than in its first": _drifts,
    "slowed since switched on": _since_start,
    "others": _busy,
    "energy": _energy,
    "idle": _idle,
    "reading the sensor took": _sampling,
    "memory limit of": _unit,
}
