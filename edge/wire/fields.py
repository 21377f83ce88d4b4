"""Checks of what stands in the JSON of a message: type, range, length. The same for what is sent and what arrives."""

import json
import math
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any, NoReturn

from edge.wire import words
from edge.wire.frames import WireError

Check = Callable[[str, Any], Any]
"""Takes a field's name and value; returns the value, or raises `WireError` with both."""

JSON_LIMIT = 4 << 20
TEXT_LIMIT = 4096
KEY_LIMIT = 256
ENTRIES_LIMIT = 4096
DEPTH_LIMIT = 8
INTEGER_LIMIT = (1 << 63) - 1


def load(data: bytes) -> dict[str, Any]:
    """A JSON object, as it is or deflated (`words`).

    Raises:
        WireError: it is no object, is too long or nested too deep, or holds NaN or infinity.
    """
    if len(data) > JSON_LIMIT:
        raise WireError(f"{len(data)} bytes of JSON, the limit is {JSON_LIMIT}", "too long")
    try:
        value = json.loads(words.inflate(data, JSON_LIMIT).decode(), parse_constant=_refuse_constant)
    except WireError:
        raise
    except (ValueError, RecursionError) as error:
        raise WireError(f"damaged JSON: {error!s:.80}", "json") from error
    if not isinstance(value, dict):
        raise WireError(f"JSON holds {type(value).__name__}, not an object", "json")
    return value


def dump(value: Mapping[str, Any]) -> bytes:
    """Compact JSON with sorted keys, deflated where that is shorter."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return words.deflate(text.encode())


def checked(value: Mapping[str, Any], checks: Mapping[str, Check], what: str) -> dict[str, Any]:
    """The fields that `checks` names, each checked. Other fields are left out: later versions may add some."""
    missing = checks.keys() - value.keys()
    if missing:
        raise WireError(f"{what} lacks {', '.join(sorted(missing))}", "fields")
    return {name: check(f"{what}.{name}", value[name]) for name, check in checks.items()}


def integer(low: int, high: int) -> Check:
    """A whole number from `low` to `high`."""

    def check(name: str, value: Any) -> int:
        if type(value) is not int or not low <= value <= high:
            raise WireError(f"{name} = {_short(value)} is not a whole number from {low} to {high}", "fields")
        return value

    return check


def number(name: str, value: Any) -> float:
    """A finite number."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WireError(f"{name} = {_short(value)} is not a finite number", "fields")
    if isinstance(value, int) and abs(value) > INTEGER_LIMIT:
        raise WireError(f"{name} = {_short(value)} does not fit 64 bits", "fields")
    if not math.isfinite(value):
        raise WireError(f"{name} = {_short(value)} is not a finite number", "not finite")
    return value


def text(limit: int) -> Check:
    """A string of up to so many characters."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or len(value) > limit or not _is_unicode(value):
            raise WireError(f"{name} = {_short(value)} is not a text of up to {limit} characters", "fields")
        return value

    return check


def hexadecimal(length: int) -> Check:
    """A string of so many lower-case hexadecimal digits."""

    def check(name: str, value: Any) -> str:
        if not isinstance(value, str) or len(value) != length or set(value) - set("0123456789abcdef"):
            raise WireError(f"{name} = {_short(value)} is not {length} hexadecimal digits", "fields")
        return value

    return check


def flag(name: str, value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise WireError(f"{name} = {_short(value)} is neither true nor false", "fields")
    return value


def one_of(*choices: str) -> Check:
    """One of these strings."""

    def check(name: str, value: Any) -> str:
        if value not in choices:
            raise WireError(f"{name} = {_short(value)} is none of {', '.join(choices)}", "fields")
        return str(value)

    return check


def optional(inner: Check) -> Check:
    """None, or what `inner` allows."""
    return lambda name, value: None if value is None else inner(name, value)


def ascending(inner: Check, limit: int) -> Check:
    """A list of up to so many entries, each greater than the one before. Gives a tuple."""

    def check(name: str, value: Any) -> tuple[Any, ...]:
        if not isinstance(value, (list, tuple)) or len(value) > limit:
            raise WireError(f"{name} is not a list of up to {limit} entries", "fields")
        entries = tuple(inner(name, entry) for entry in value)
        if any(later <= earlier for earlier, later in pairwise(entries)):
            raise WireError(f"{name} is not in ascending order", "fields")
        return entries

    return check


def table(inner: Check) -> Check:
    """An object with any keys, whose values `inner` allows."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping) or len(value) > ENTRIES_LIMIT:
            raise WireError(f"{name} is not a table of up to {ENTRIES_LIMIT} entries", "fields")
        return {key(name, entry): inner(f"{name}.{entry}", inside) for entry, inside in value.items()}

    return check


def exactly(**checks: Check) -> Check:
    """An object with these fields."""

    def check(name: str, value: Any) -> dict[str, Any]:
        if not isinstance(value, Mapping):
            raise WireError(f"{name} = {_short(value)} is not a table", "fields")
        return checked(value, checks, name)

    return check


def scalar(name: str, value: Any) -> Any:
    """A text, a finite number, true, false or None."""
    if value is None or isinstance(value, bool):
        return value
    return text(TEXT_LIMIT)(name, value) if isinstance(value, str) else number(name, value)


def tree(name: str, value: Any, depth: int = 0) -> Any:
    """A scalar, or a table of trees, not too deep."""
    if not isinstance(value, Mapping):
        return scalar(name, value)
    if depth >= DEPTH_LIMIT:
        raise WireError(f"{name:.80} is nested more than {DEPTH_LIMIT} deep", "fields")
    return table(lambda inner, inside: tree(inner, inside, depth + 1))(name, value)


def root(name: str, value: Any) -> Any:
    """A table of trees."""
    if not isinstance(value, Mapping):
        raise WireError(f"{name} is not a table", "fields")
    return tree(name, value)


key = text(KEY_LIMIT)


def _short(value: Any) -> str:
    # Python refuses to print integers of more than a few thousand digits.
    return "a very large number" if isinstance(value, int) and abs(value) > INTEGER_LIMIT else f"{value!r:.40}"


def _is_unicode(value: str) -> bool:
    # JSON can spell half of a surrogate pair, which no UTF-8 can carry on.
    return value.isascii() or not any("\ud800" <= character <= "\udfff" for character in value)


def _refuse_constant(constant: str) -> NoReturn:
    raise WireError(f"JSON holds {constant}", "not finite")
