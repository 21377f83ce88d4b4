"""Objects as JSON and byte strings, and back: only of classes that are named beforehand, unlike pickle.

`Freezer` walks an object and its attributes. Numbers, texts and containers are what they are; bytes and arrays go into
a list of blobs, equal ones once; an object of a class that is not named is left out as a *part*, by the name of the
attribute where it stood, and put in again by whoever thaws. An object that stands in several places is one again.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping
from types import ModuleType
from typing import Any

import numpy as np

Classes = Mapping[str, type[Any]]


class FreezeError(ValueError):
    """Something that cannot be frozen or thawed; the message says what."""


def classes_of(*modules: ModuleType) -> dict[str, type[Any]]:
    """The classes that these modules define, by name."""
    return {
        name: value
        for module in modules
        for name, value in vars(module).items()
        if isinstance(value, type) and value.__module__ == module.__name__
    }


class Freezer:
    """Freezes objects of these classes."""

    def __init__(self, classes: Classes) -> None:
        self.blobs: list[bytes] = []
        self.roles: list[set[str]] = []
        """For each blob, the attributes where it stood."""
        self._names = {kind: name for name, kind in classes.items()}
        self._numbers: dict[bytes, int] = {}
        self._seen: dict[int, tuple[int, Any]] = {}
        """Objects by identity, with their numbers; held, so that no other gets the same identity."""

    def freeze(self, value: Any, part: str = "") -> Any:
        """What JSON can carry; bytes and arrays by their place in `blobs`."""
        kind = type(value)
        if value is None or kind in (bool, int, float, str):
            return value
        if kind is bytes:
            head = _saved_head(value)  # apart, so that an array and what numpy saved of it are one blob
            return {"bytes": self._blob(value[head:], part), "head": value[:head].hex()}
        if kind in (list, tuple, set, frozenset):
            return {kind.__name__: [self.freeze(item, part) for item in value]}
        if kind is deque:
            return {"deque": [self.freeze(item, part) for item in value], "limit": value.maxlen}
        if kind in (dict, Counter):
            pairs = [[self.freeze(key), self.freeze(item, part)] for key, item in value.items()]
            return {kind.__name__: pairs}
        if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
            blob = self._blob(np.ascontiguousarray(value).tobytes(), part)
            return {"array": blob, "dtype": value.dtype.str, "shape": list(value.shape)}
        if kind in self._names and issubclass(kind, tuple):
            return {"named": self._names[kind], "items": [self.freeze(item, part) for item in value]}
        if kind in self._names:
            if id(value) in self._seen:
                return {"same": self._seen[id(value)][0]}
            number = len(self._seen)
            self._seen[id(value)] = number, value
            has = {name: self.freeze(item, name) for name, item in vars(value).items()}
            return {"object": self._names[kind], "number": number, "has": has}
        return {"part": part}

    def _blob(self, data: bytes, part: str) -> int:
        number = self._numbers.setdefault(data, len(self.blobs))
        if number == len(self.blobs):
            self.blobs.append(data)
            self.roles.append(set())
        self.roles[number].add(part)
        return number


class Thawer:
    """Makes objects again.

    Args:
        classes: by name; another class than was frozen may stand there.
        blobs: as the freezer gave them.
        parts: by name, what was left out.
    """

    def __init__(self, classes: Classes, blobs: list[bytes], parts: Mapping[str, Any]) -> None:
        self._classes, self._blobs, self._parts = classes, blobs, parts
        self._made: dict[int, Any] = {}

    def thaw(self, value: Any) -> Any:
        """The object again.

        Raises:
            FreezeError: a class that is not named, a part that is not there, or nothing that a freezer made.
        """
        if not isinstance(value, dict):
            return value
        try:
            return self._thaw(value)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            if isinstance(error, FreezeError):
                raise
            raise FreezeError(f"the snapshot is damaged: {type(error).__name__} {error}") from error

    def _thaw(self, value: dict[str, Any]) -> Any:
        kind = next(iter(value))
        inside = value[kind]
        if kind == "bytes":
            return bytes.fromhex(value["head"]) + self._blobs[inside]
        if kind == "deque":
            return deque(self._items(inside), value["limit"])
        if kind in _CONTAINERS:
            return _CONTAINERS[kind](self._items(inside))
        if kind in ("dict", "Counter"):
            pairs = {self.thaw(key): self.thaw(item) for key, item in inside}
            return Counter(pairs) if kind == "Counter" else pairs
        if kind == "array":
            return np.frombuffer(self._blobs[inside], np.dtype(value["dtype"])).reshape(value["shape"]).copy()
        if kind in ("object", "named"):
            if inside not in self._classes:
                raise FreezeError(f"the snapshot has an object of class {inside!r}, which this release does not know")
            if kind == "named":
                return self._classes[inside](*self._items(value["items"]))
            made = self._made[value["number"]] = object.__new__(self._classes[inside])
            vars(made).update({name: self.thaw(item) for name, item in value["has"].items()})
            return made
        if kind == "same" and inside in self._made:
            return self._made[inside]
        if kind == "part" and inside in self._parts:
            return self._parts[inside]
        raise FreezeError(f"the snapshot leaves out {inside!r}, which nobody brings")

    def _items(self, items: Iterable[Any]) -> Iterable[Any]:
        return (self.thaw(item) for item in items)


def _saved_head(data: bytes) -> int:
    """Bytes before the numbers of an array as numpy saves it; 0 of other data."""
    return 10 + int.from_bytes(data[8:10], "little") if data.startswith(b"\x93NUMPY\x01") else 0


_CONTAINERS: dict[str, Any] = {"list": list, "tuple": tuple, "set": set, "frozenset": frozenset}
