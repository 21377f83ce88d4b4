"""As much of DER as a certificate request needs written and a certificate needs read: tag, length, content."""

from dataclasses import dataclass

from edge.enrolment.errors import EnrolmentError

INTEGER, BITS, OCTETS, OBJECT, TEXT = 0x02, 0x03, 0x04, 0x06, 0x0C
SEQUENCE, SET = 0x30, 0x31
UTC_TIME, TIME = 0x17, 0x18


def wrap(tag: int, *contents: bytes) -> bytes:
    """One element around contents."""
    content = b"".join(contents)
    size = len(content)
    if size < 0x80:
        return bytes([tag, size]) + content
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def object_id(*numbers: int) -> bytes:
    """An OBJECT IDENTIFIER."""
    coded = bytearray([40 * numbers[0] + numbers[1]])
    for number in numbers[2:]:
        digits = [number & 0x7F]
        while number := number >> 7:
            digits.append(0x80 | number & 0x7F)
        coded += bytes(reversed(digits))
    return wrap(OBJECT, bytes(coded))


@dataclass(frozen=True)
class Element:
    """One element that was read."""

    tag: int
    content: bytes
    whole: bytes
    """With tag and length."""

    def children(self) -> list["Element"]:
        """The elements inside.

        Raises:
            EnrolmentError: there is something else inside.
        """
        found, rest = [], self.content
        while rest:
            element, rest = take(rest)
            found.append(element)
        return found


def take(data: bytes) -> tuple[Element, bytes]:
    """The first element of some bytes, and what comes after it.

    Raises:
        EnrolmentError: it is cut off, or of a form that no certificate has.
    """
    if len(data) < 2 or data[0] & 0x1F == 0x1F:
        raise EnrolmentError("a certificate is cut off")
    size, start = data[1], 2
    if size & 0x80:
        count = size & 0x7F
        if not 1 <= count <= 3:
            raise EnrolmentError("a certificate has a length that none has")
        size, start = int.from_bytes(data[2 : 2 + count], "big"), 2 + count
    if len(data) < start + size:
        raise EnrolmentError("a certificate is cut off")
    return Element(data[0], data[start : start + size], data[: start + size]), data[start + size :]
