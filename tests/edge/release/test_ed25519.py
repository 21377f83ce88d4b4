"""Ed25519 against the vectors of RFC 8032, another implementation, and signatures that must not pass."""

import random

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from edge.release.ed25519 import public_key, sign, verify

L = 2**252 + 27742317777372353535851937790883648493
P = 2**255 - 19

# RFC 8032, section 7.1: seed, public key, message, signature.
VECTORS = {
    "TEST 1": (
        "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60",
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
    ),
    "TEST 2": (
        "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb",
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
    ),
    "TEST 3": (
        "c5aa8df43f9f837bedb7442f31dcb7b166d38535076f094b85ce3a2e0b4458f7",
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
    ),
    "TEST SHA(abc)": (
        "833fe62409237b9d62ec77587520911e9a759cec1d19755b7da901b96dca3d42",
        "ec172b93ad5e563bf4932c70e1245034c35467ef2efd4d64ebf819683467e2bf",
        "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f",
        "dc2a4459e7369633a52b1bf277839a00201009a3efbf3ecb69bea2186c26b58909351fc9ac90b3ecfdfbc7c66431e0303dca179c138ac17ad9bef1177331a704",
    ),
}  # fmt: skip

# Points of order 1, 2, 4 and 8, as their y is written.
SMALL = [
    (1).to_bytes(32, "little"),
    (P - 1).to_bytes(32, "little"),
    (0).to_bytes(32, "little"),
    (1 << 255).to_bytes(32, "little"),
    *(bytes.fromhex(text) for text in (
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc85",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa",
    )),
]  # fmt: skip

SEED = bytes(range(32))
PUBLIC = public_key(SEED)


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_of_the_rfc(name):
    seed, public, message, signature = (bytes.fromhex(text) for text in VECTORS[name])
    assert public_key(seed) == public
    assert sign(seed, message) == signature
    assert verify(public, message, signature)
    assert not verify(public, message + b"x", signature)


def test_another_implementation_agrees():
    rng = random.Random(5)
    for length in (0, 1, 63, 64, 300):
        seed, message = rng.randbytes(32), rng.randbytes(length)
        other = Ed25519PrivateKey.from_private_bytes(seed)
        assert public_key(seed) == other.public_key().public_bytes_raw()
        assert sign(seed, message) == other.sign(message)
        assert verify(public_key(seed), message, other.sign(message))


def test_flipped_bits_are_refused_here_and_there():
    signature = sign(SEED, b"release")
    other = Ed25519PublicKey.from_public_bytes(PUBLIC)
    for bit in range(0, 512, 5):
        changed = bytearray(signature)
        changed[bit // 8] ^= 1 << bit % 8
        assert not verify(PUBLIC, b"release", bytes(changed)), bit
        with pytest.raises(InvalidSignature):
            other.verify(bytes(changed), b"release")


def test_a_response_beyond_the_order_is_refused():
    """S + L satisfies the same equation: without the check, every signature would have several forms."""
    signature = sign(SEED, b"release")
    response = int.from_bytes(signature[32:], "little")
    for times in range(1, 15):
        malleable = signature[:32] + (response + times * L).to_bytes(32, "little")
        assert not verify(PUBLIC, b"release", malleable)


@pytest.mark.parametrize("point", SMALL, ids=lambda point: point.hex()[:8])
def test_points_of_small_order_are_refused(point):
    # With such a key, R = a small point and S = 0 would fit one message in eight, or all.
    for message in (b"a", b"b", b"c", b"d", b"e", b"f", b"g", b"h"):
        assert not any(verify(point, message, commitment + bytes(32)) for commitment in SMALL)
    assert not verify(PUBLIC, b"release", point + sign(SEED, b"release")[32:])


def test_points_not_written_the_one_way_are_refused():
    for y in range(P, 2**255):  # the 19 values that stand for 0 … 18 as well
        for odd in (0, 1 << 255):
            point = (y | odd).to_bytes(32, "little")
            assert not verify(point, b"a", PUBLIC + bytes(32))
            assert not verify(PUBLIC, b"a", point + bytes(32))
    assert not verify((1 | 1 << 255).to_bytes(32, "little"), b"a", PUBLIC + bytes(32))  # x = 0 has no odd form


def test_what_has_another_length_is_refused():
    signature = sign(SEED, b"release")
    for length in range(64):
        assert not verify(PUBLIC, b"release", signature[:length])
    assert not verify(PUBLIC, b"release", signature + b"\0")
    assert not verify(PUBLIC[:31], b"release", signature)
    with pytest.raises(ValueError, match="32 bytes, not 31"):
        sign(SEED[:31], b"")
