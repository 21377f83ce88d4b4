"""Ed25519 (RFC 8032) in plain Python, for boards that have nothing but a python3.

Strict where the RFC leaves a choice: S must be below L, points must be canonical and of large order, and the equation
is checked without the cofactor, so a signature that passes here passes everywhere. A verification takes about 2 ms on
a workstation. Python's integers do not run in constant time: sign with it where nobody can time it, such as a
board that signs its own certificate request.
"""

import hashlib
from collections.abc import Sequence

_Point = tuple[int, int, int, int]
"""Extended coordinates X, Y, Z, T: x = X/Z, y = Y/Z, x·y = T/Z."""

_P = 2**255 - 19
_L = 2**252 + 27742317777372353535851937790883648493
_D = -121665 * pow(121666, -1, _P) % _P
_ROOT = pow(2, (_P - 1) // 4, _P)
"""A square root of -1."""
_NEUTRAL: _Point = (0, 1, 1, 0)


def public_key(seed: bytes) -> bytes:
    """Return the public key, 32 bytes, of a secret of 32 random bytes.

    Raises:
        ValueError: the seed has another length.
    """
    return _pack(_combine((_expand(seed)[0], _BASE)))


def sign(seed: bytes, message: bytes) -> bytes:
    """Return the signature, 64 bytes, always the same for the same seed and message.

    Raises:
        ValueError: the seed has another length.
    """
    scalar, prefix = _expand(seed)
    public = _pack(_combine((scalar, _BASE)))
    nonce = _hash(prefix, message)
    commitment = _pack(_combine((nonce, _BASE)))
    response = (nonce + _hash(commitment, public, message) * scalar) % _L
    return commitment + response.to_bytes(32, "little")


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Return whether `signature` is the message's by `public`; anything malformed is False, nothing is raised."""
    if len(public) != 32 or len(signature) != 64:
        return False
    commitment, response = signature[:32], int.from_bytes(signature[32:], "little")
    key = _unpack(public)
    if response >= _L or key is None or _is_small(key):
        return False
    stated = _unpack(commitment)
    if stated is None or _is_small(stated):
        return False
    found = _combine((response, _BASE), (_hash(commitment, public, message), _negative(key)))
    return _pack(found) == commitment


def _expand(seed: bytes) -> tuple[int, bytes]:
    """Return the secret scalar and the prefix that nonces are made from."""
    if len(seed) != 32:
        raise ValueError(f"a seed of Ed25519 has 32 bytes, not {len(seed)}")
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little") & ((1 << 254) - 8) | 1 << 254
    return scalar, digest[32:]


def _hash(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little") % _L


def _add(one: _Point, other: _Point) -> _Point:
    (x1, y1, z1, t1), (x2, y2, z2, t2) = one, other
    a, b = (y1 - x1) * (y2 - x2) % _P, (y1 + x1) * (y2 + x2) % _P
    c, d = 2 * _D * t1 * t2 % _P, 2 * z1 * z2 % _P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _double(point: _Point) -> _Point:
    x, y, z, _ = point
    a, b = x * x % _P, y * y % _P
    e, g, h = 2 * x * y, b - a, -a - b
    f = g - 2 * z * z
    # E, F, G, H as they stand in the RFC, up to a common sign; E has 512 bits and is shortened once for both products.
    e %= _P
    f %= _P
    return e * f % _P, g * h % _P, f * g % _P, e * h % _P


def _negative(point: _Point) -> _Point:
    x, y, z, t = point
    return -x % _P, y, z, -t % _P


def _combine(*terms: tuple[int, _Point]) -> _Point:
    """Return the sum of scalar · point, with one row of doublings for all."""
    rows = [(_digits(scalar), _odd_multiples(point)) for scalar, point in terms]
    total = _NEUTRAL
    for place in range(max(len(digits) for digits, _ in rows) - 1, -1, -1):
        total = _double(total)
        for digits, multiples in rows:
            digit = digits[place] if place < len(digits) else 0
            if digit > 0:
                total = _add(total, multiples[digit >> 1])
            elif digit:
                total = _add(total, _negative(multiples[-digit >> 1]))
    return total


def _digits(scalar: int) -> list[int]:
    """Return odd digits within ±15 and many zeros between them: scalar = Σ digit · 2^place."""
    digits = []
    while scalar:
        digit = 0
        if scalar & 1:
            digit = scalar & 31
            digit -= 32 if digit > 16 else 0
        digits.append(digit)
        scalar = (scalar - digit) >> 1
    return digits or [0]


def _odd_multiples(point: _Point) -> Sequence[_Point]:
    """Return 1, 3, 5 … 15 times the point."""
    twice = _double(point)
    multiples = [point]
    while len(multiples) < 8:
        multiples.append(_add(multiples[-1], twice))
    return multiples


def _is_small(point: _Point) -> bool:
    """Whether eight times the point is nothing: keys that would pass for many messages."""
    x, y, z, _ = _double(_double(_double(point)))
    return x % _P == 0 and (y - z) % _P == 0


def _pack(point: _Point) -> bytes:
    x, y, z, _ = point
    inverse = pow(z, -1, _P)
    return (y * inverse % _P | (x * inverse % _P & 1) << 255).to_bytes(32, "little")


def _unpack(data: bytes) -> _Point | None:
    """Return the point of 32 bytes, or None where it is not on the curve or not written the one canonical way."""
    number = int.from_bytes(data, "little")
    odd, y = number >> 255, number & ((1 << 255) - 1)
    if y >= _P:
        return None
    u, v = (y * y - 1) % _P, (_D * y * y + 1) % _P
    x = u * pow(v, 3, _P) * pow(u * pow(v, 7, _P), (_P - 5) // 8, _P) % _P
    if v * x * x % _P != u:
        x = x * _ROOT % _P
        if v * x * x % _P != u:
            return None
    if x == 0 and odd:
        return None
    if x & 1 != odd:
        x = _P - x
    return x, y, 1, x * y % _P


def _base() -> _Point:
    point = _unpack((4 * pow(5, -1, _P) % _P).to_bytes(32, "little"))
    assert point is not None  # noqa: S101 - y = 4/5 is on the curve; for mypy
    return point


_BASE = _base()
