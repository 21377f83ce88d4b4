"""Walks through the bytes of a message that arrived; every step is checked."""

import struct
from typing import Any

from edge.wire.codec import Array, decode
from edge.wire.frames import WireError
from edge.wire.manifest import PARTS
from edge.wire.tables import Tables
from edge.wire.weights import Difference

U16 = struct.Struct("<H")
DIFFERENCE = struct.Struct("<BI")


class Reader:
    """Walks through a message's bytes; every step is checked."""

    def __init__(self, data: bytes, decoded_limit: int, tables: Tables | None = None) -> None:
        self._data = data
        self._tables = tables
        self._offset = 1
        self._left = decoded_limit

    def take(self, length: int) -> bytes:
        """The next so many bytes."""
        taken = self._data[self._offset : self._offset + length]
        if len(taken) < length:
            raise WireError(f"message of {len(self._data)} bytes is cut off", "too short")
        self._offset += length
        return taken

    def rest(self) -> bytes:
        """All that remains."""
        return self.take(len(self._data) - self._offset)

    def numbers(self, layout: struct.Struct) -> tuple[Any, ...]:
        """Numbers of a fixed layout."""
        return layout.unpack(self.take(layout.size))

    def tensor(self) -> Array:
        """A tensor; all of a message share one limit of decoded bytes."""
        array, self._offset = decode(self._data, self._offset, limit=self._left, tables=self._tables)
        self._left -= array.nbytes
        return array

    def tensors(self) -> dict[str, Array]:
        """Named tensors."""
        (count,) = self.numbers(U16)
        tensors: dict[str, Array] = {}
        for _ in range(count):
            try:
                name = self.take(self.take(1)[0]).decode()
            except UnicodeDecodeError as error:
                raise WireError("a tensor's name is not UTF-8", "fields") from error
            if name in tensors:
                raise WireError(f"tensor {name!r} comes twice", "fields")
            tensors[name] = self.tensor()
        return tensors

    def difference(self) -> Difference | None:
        """What may stand behind the tensors."""
        if self._offset == len(self._data):
            return None
        places, base = self.numbers(DIFFERENCE)
        if places >> len(PARTS):
            raise WireError(f"a difference of unknown parts {places}", "fields")
        parts = tuple(part for place, part in enumerate(PARTS) if places >> place & 1)
        found = Difference(base, parts, self.tensor()) if parts else Difference(base)
        check_difference(found)
        return found

    def goes_on_with(self, form: int) -> bool:
        """Whether there is more, and its first byte is this one."""
        return self._data[self._offset : self._offset + 1] == bytes([form])

    def end(self) -> None:
        """Raise `WireError` unless everything has been read."""
        if self._offset != len(self._data):
            raise WireError(f"{len(self._data) - self._offset} bytes too many behind the message", "length")


def check_floats(name: str, array: Array) -> None:
    """Raise `WireError` unless it is of floats."""
    if array.dtype.kind != "f":
        raise WireError(f"{name} of {array.dtype} is not of floats", "dtype")


def check_difference(difference: Difference) -> None:
    """Raise `WireError` unless its parts are known, and its values flat floats."""
    check_floats("difference", difference.values)
    if unknown := set(difference.parts) - set(PARTS):
        raise WireError(f"a difference of unknown parts {', '.join(sorted(unknown))}", "fields")
    if difference.values.ndim != 1:
        raise WireError(f"a difference of shape {difference.values.shape} is not flat", "shape")
