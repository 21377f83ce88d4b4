"""Whole numbers of any size in as few bytes as they need."""

from edge.wire.frames import WireError

VARINT_LIMIT = 0xFFFFFFFF


def pack_varint(value: int) -> bytes:
    """A whole number in seven bits a byte, lowest first; the top bit says that more follow (LEB128)."""
    if not 0 <= value <= VARINT_LIMIT:
        raise WireError(f"{value} is not 0 to {VARINT_LIMIT}", "range")
    parts = bytearray()
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def unpack_varint(data: bytes | memoryview, offset: int) -> tuple[int, int]:
    """The number at `offset` and the offset behind it.

    Raises:
        WireError: it is cut off, or longer than five bytes.
    """
    value = 0
    for place in range(5):
        if offset + place >= len(data):
            raise WireError("number is cut off", "too short")
        byte = data[offset + place]
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            if value > VARINT_LIMIT:
                break
            return value, offset + place + 1
    raise WireError(f"number is above {VARINT_LIMIT}", "range")


def zigzag(value: int) -> int:
    """Numbers with a sign as numbers without: 0, -1, 1, -2 become 0, 1, 2, 3."""
    return 2 * value if value >= 0 else -2 * value - 1


def unzigzag(value: int) -> int:
    """The way back."""
    return value >> 1 if value % 2 == 0 else -(value >> 1) - 1
