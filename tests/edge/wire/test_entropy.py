import struct
import zlib

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from edge.wire import entropy, escapes, rans
from edge.wire.codec import decode, encode
from edge.wire.fit import train
from edge.wire.frames import WireError
from edge.wire.layout import FLAT, LAST, LINE, PLANE, Layout, fits
from edge.wire.ranks import fold, lower_bits, unfold
from edge.wire.table import Model, Table, alphabet_of, logistic_table, parse_table
from edge.wire.tables import Tables
from tests.edge.wire import plain_reader

shapes = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=7)
floats = hnp.arrays(np.float32, shapes, elements=st.floats(-1e6, 1e6, width=32))


def activations(shape=(8, 5, 6, 9), seed=0):
    """Half of them zero, the others alike to what is above."""
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal(shape).astype(np.float32)
    for row in range(1, shape[2] if len(shape) > 2 else 0):
        noise[:, :, row] = 0.8 * noise[:, :, row - 1] + 0.6 * noise[:, :, row]
    return np.maximum(noise, 0)


def integers(array):
    return np.rint(array / array.std()).astype(np.int16)


@given(floats, st.sampled_from([0.01, 0.1, 0.5, 1.0, 2.0, 60.0]))
def test_what_comes_back_is_off_by_a_step_at_most_and_zero_stays_zero(array, deviations):
    packed = encode(array, f"entropy:{deviations}")
    values, end = decode(packed)
    assert (end, values.shape, values.dtype) == (len(packed), array.shape, np.float32)
    step = entropy.quantise(array, deviations=deviations).step
    assert np.all(np.abs(values.astype(np.float64) - array) <= step * 1.001)
    assert np.all(values[array == 0] == 0)


@pytest.mark.parametrize(
    "shape",
    [
        (40_000,),
        (300, 41),
        (32, 32, 50),
        (4, 31, 17),
        (1, 6, 100),
        (8, 5, 6, 9),
        (2, 1, 1, 900),
        (50, 20, 5, 5),
        (2,) * 8,
    ],
)
@pytest.mark.parametrize("deviations", [0.02, 0.5, 2])
def test_larger_tensors_of_any_shape_come_back(shape, deviations):
    array = activations(shape)
    values, _ = decode(encode(array, f"entropy:{deviations}"))
    assert values.shape == shape
    assert np.abs(values - array).max() <= deviations * array.std() * 1.001


@pytest.mark.parametrize("value", [0.0, -7.25, 1e-42, 1e38])
def test_a_constant_tensor_stays_as_it_is(value):
    values, _ = decode(encode(np.full((30, 40), value, np.float32), "entropy:0.5"))
    np.testing.assert_allclose(values, np.full((30, 40), np.float32(value)), rtol=1e-3, atol=1e-37)


def test_an_outlier_widens_the_step():
    array = np.zeros(100_000, np.float32)
    array[0], array[1] = 1000.0, 0.01
    values, _ = decode(encode(array, "entropy:0.001"))
    assert values[0] == pytest.approx(1000, abs=0.05)
    assert values[1] == 0
    with pytest.raises(WireError, match="too large for a step"):
        encode(np.array([3.4e38, -3.4e38], np.float32), "entropy:1")


def test_it_is_shorter_than_the_other_coders_and_than_the_entropy_of_single_symbols():
    array = activations((32, 8, 12, 12))
    symbols = entropy.quantise(array, deviations=1)
    _, counts = np.unique(symbols.values, return_counts=True)
    alone = -(counts * np.log2(counts / counts.sum())).sum() / 8
    length = len(encode(array, "entropy:1"))
    assert length < 0.92 * alone
    assert length < 0.85 * len(encode(array, "quantised:1"))


def test_values_come_back_at_their_mean_and_so_closer_than_in_the_middle():
    array = activations((32, 8, 12, 12))
    symbols = entropy.quantise(array, deviations=2)
    values, _ = decode(encode(array, "entropy:2"))
    middle = symbols.values.reshape(array.shape) * symbols.step
    assert np.square(values - array).mean() < 0.99 * np.square(middle - array).mean()


@pytest.mark.parametrize("deviations", [2.0, 1.0, 0.1, 0.02])
def test_what_is_decoded_does_not_hang_on_the_table(deviations):
    """A device codes a step once more after a power cut, with other tables than before: the hub must read the same."""
    array = activations((16, 6, 8, 8))
    symbols = entropy.quantise(array, deviations=deviations)
    payloads = [entropy.encode_plain(symbols), entropy.encode_alone(symbols)]
    for seed in (1, 2):
        other = np.random.default_rng(seed).laplace(0, seed, (32, 6, 8, 8)).round().astype(np.int16)
        payloads.append(entropy.encode_with(symbols, train(other), embed=True).payload)
    decoded = [entropy.decode(payload, array.shape) for payload in payloads]
    for values in decoded[1:]:
        np.testing.assert_array_equal(values, decoded[0])


def test_the_share_of_nonzeros_and_the_step_are_told():
    symbols = entropy.quantise(np.array([0, 0.4, 0.6, -2.0], np.float32), step=1.0)
    assert (symbols.step, symbols.nonzero_share, symbols.values.tolist()) == (1.0, 0.5, [0, 0, 1, -2])


# The bytes


def test_the_bytes_without_a_table():
    # Step 1; 1 lies at 1.25 on average, 64/256 off; 0, 1, 0, 3 as 1, 01, 1, 0001 without lower bits.
    packed = encode(np.array([0, 1.25, 0, 3], np.float32), entropy_with_step(1.0))
    assert packed.hex() == "0401040c000000803f000040000000b1"


def test_the_bytes_with_a_table():
    table = Table(Model(3, 2, FLAT), 0, (0, 1), (), np.array(WEIGHTS, np.int8))
    assert table.raw.hex() == "0102000208fc00040000000000f80000080000000000"
    assert table.data[:1] == b"\1"
    assert zlib.decompress(table.data[1:], -15) == table.raw
    assert table.id == zlib.crc32(table.raw)
    symbols = entropy.quantise(np.array([1, 0, 1, 1, 2, 0, 0, 1, 5], np.float32), step=1.0)
    named = entropy.encode_with(symbols, table, embed=False).payload
    assert named.hex() == GOLDEN_NAMED
    embedded = entropy.encode_with(symbols, table, embed=True).payload
    assert embedded == b"\x02" + named[1:9] + bytes([len(table.data)]) + table.data + named[13:]


# Form, step, centroids, id, lanes - 1, pace, bytes beside the symbols, the state, which holds two of them; the third; a word.
GOLDEN_NAMED = "010000803f00000000e6970138000003108dc0889024"
WEIGHTS = [[8, -4, 0, 4, 0, 0, 0, 0, 0], [-8, 0, 0, 8, 0, 0, 0, 0, 0]]


def test_frequencies_are_the_same_on_every_machine():
    levels = logistic_table()
    assert levels[[0, 48, 96, 104, 192]].tolist() == [0, 162, 32768, 47911, 65536]
    assert (levels + levels[::-1] == 65536).all()
    assert zlib.crc32(levels.astype("<u4").tobytes()) == 3566401946
    table = Table(Model(3, 2, FLAT), 0, (0, 1), (), np.array(WEIGHTS, np.int8))
    assert table.frequencies[0].tolist() == [2335, 2814, 1035, 2005, 3986, 1466, 501, 1121, 1121]
    table = train(integers(activations((16, 6, 8, 8))))
    assert (table.frequencies.sum(axis=1) == rans.SLOTS).all()
    assert table.frequencies.min() >= 1


class WithStep:
    number = entropy.NUMBER

    def __init__(self, step):
        self.step = step

    def encode(self, array):
        return entropy.encode_alone(entropy.quantise(array, step=self.step))


def entropy_with_step(step):
    return WithStep(step)


@pytest.mark.parametrize(
    ("shape", "deviations"),
    [((700,), 1), ((9, 7, 20), 1), ((30, 6, 15), 2), ((6, 4, 5, 8), 1), ((32, 8, 10, 11), 2), ((4, 9, 40), 0.05)],
)
def test_a_reader_written_from_the_readme_reads_the_same(shape, deviations):
    array = activations(shape)
    symbols = entropy.quantise(array, deviations=deviations)
    table = train(symbols.values.reshape(shape), horizon=100)
    known, plain = Tables(), {}
    for embed in (True, False):
        payload = entropy.encode_with(symbols, table, embed=embed).payload
        values = entropy.decode(payload, shape, known)
        np.testing.assert_allclose(plain_reader.read(payload, shape, plain), values, rtol=1e-6)
    alone = entropy.encode_plain(symbols)
    np.testing.assert_allclose(plain_reader.read(alone, shape, {}), entropy.decode(alone, shape), rtol=1e-6)


# Tables


def test_a_named_table_must_be_known():
    array = activations()
    symbols = entropy.quantise(array, deviations=1)
    table = train(symbols.values.reshape(array.shape))
    tables = Tables()
    named = entropy.encode_with(symbols, table, embed=False).payload
    for known in (None, tables):
        with pytest.raises(WireError, match="is not known here") as caught:
            entropy.decode(named, array.shape, known)
        assert caught.value.reason == "table"
    first = entropy.decode(entropy.encode_with(symbols, table, embed=True).payload, array.shape, tables)
    assert table.id in tables
    np.testing.assert_array_equal(entropy.decode(named, array.shape, tables), first)


def test_the_table_that_was_not_used_for_longest_goes():
    made = [Table(Model(2, 2, FLAT), 0, (value,), (), np.zeros((1, 7), np.int8)) for value in range(4)]
    tables = Tables(3)
    for table in made[:3]:
        assert tables.put(table) is table
    assert tables.get(made[0].id) is made[0]
    tables.put(made[3])
    assert [table.id in tables for table in made] == [True, False, True, True]
    assert len(tables) == 3
    assert tables.put(parse_table(made[0].data)) is made[0]


def test_a_table_for_other_channels_is_refused():
    symbols = entropy.quantise(activations((8, 6, 7)), deviations=1)
    table = Table(Model(3, 2, LINE), 0, (0, 1), (0, 1, 0, 1, 0), np.zeros((2, 10), np.int8))
    assert not entropy.usable(table, (8, 6, 7))
    with pytest.raises(WireError, match=r"is not for tensors of shape \(8, 6, 7\)"):
        entropy.encode_with(symbols, table, embed=False)


@given(st.integers(0, 3), st.sampled_from([2, 3, 4]), shapes.filter(lambda shape: 0 not in shape))
def test_what_is_laid_out_comes_back(kind, size, shape):
    assume(fits(kind, shape))
    array = np.arange(int(np.prod(shape)), dtype=np.uint16).reshape(shape)
    layout = Layout(kind, shape, size)
    groups = layout.arrange(array)
    assert groups.shape == (layout.slabs, layout.slab, size)
    np.testing.assert_array_equal(layout.restore(groups), array.ravel())
    assert sorted(groups.ravel()[groups.ravel() > 0].tolist()) == list(range(1, array.size))


def test_groups_lie_along_columns_or_along_the_channels_line():
    plane = Layout(PLANE, (2, 1, 2, 2), 4).arrange(np.arange(8).reshape(2, 1, 2, 2))
    assert plane.tolist() == [[[0, 1, 4, 5]], [[2, 3, 6, 7]]]
    line = Layout(LINE, (1, 2, 4), 2).arrange(np.arange(8).reshape(1, 2, 4))
    assert line.tolist() == [[[0, 1], [4, 5]], [[2, 3], [6, 7]]]
    last = Layout(LAST, (1, 4, 2), 2).arrange(np.arange(8).reshape(1, 4, 2))
    assert last.tolist() == [[[0, 2], [1, 3]], [[4, 6], [5, 7]]]


@given(
    hnp.arrays(np.int64, st.integers(0, 60), elements=st.integers(-escapes.VALUE_LIMIT + 1, escapes.VALUE_LIMIT - 1))
)
def test_numbers_without_a_model_come_back(values):
    packed = escapes.pack(values)
    back, taken = escapes.unpack(packed + b"more", len(values))
    assert taken == len(packed)
    np.testing.assert_array_equal(back, values)


@given(hnp.arrays(np.int64, st.integers(0, 30), elements=st.integers(-32766, 32766)), st.integers(0, 15))
def test_lower_bits_come_back(values, shift):
    np.testing.assert_array_equal(unfold(fold(values, shift), lower_bits(values, shift), shift), values)


@pytest.mark.parametrize("lanes", [1, 2, 15, 16, 17, 100, 256])
@pytest.mark.parametrize("side", [0, 3, 1000])
def test_lanes_give_back_what_they_held(lanes, side):
    array = activations((32, 4, 5, 30))
    table = train(integers(array))
    layout = Layout(table.model.layout, array.shape, table.model.size)
    ranks = entropy._ranked(entropy.quantise(array, deviations=1), table)[1]
    bases = layout.classes(table.class_of(layout.channels))
    flat = entropy._places(ranks, table, layout, bases)
    held = np.random.default_rng(1).bytes(side)
    frequency, start = table.flat
    states, words, pace = rans.encode(frequency[flat], start[flat], layout.slab, lanes, [1, 8, 20], held)
    packed = rans.pack_states(states)
    again, taken = rans.unpack_states(packed + b"more", lanes)
    assert taken == len(packed)
    np.testing.assert_array_equal(again, states)
    _, back = rans.decode(again, words, layout.slabs, bases, pace, alphabet_of(table))
    assert back.rstrip(b"\0") == held[: 2 * rans.first_lanes(lanes, pace)].rstrip(b"\0")


# What is damaged


def payload_and_tables():
    array = activations((6, 4, 5, 8))
    symbols = entropy.quantise(array, deviations=1)
    table = train(symbols.values.reshape(array.shape), horizon=8)
    tables = Tables()
    tables.put(table)
    return array.shape, tables, [
        entropy.encode_plain(symbols),
        entropy.encode_with(symbols, table, embed=False).payload,
        entropy.encode_with(symbols, table, embed=True).payload,
        entropy.encode_alone(entropy.quantise(array, deviations=0.05)),
    ]  # fmt: skip


SHAPE, TABLES, PAYLOADS = payload_and_tables()


@settings(max_examples=400)
@given(st.sampled_from(range(4)), st.data())
def test_flipped_and_cut_bytes_raise_nothing_but_wire_errors(which, data):
    payload = bytearray(PAYLOADS[which])
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, min(len(payload) - 1, data.draw(st.sampled_from([30, 10**6])))))
        payload[place] ^= data.draw(st.integers(1, 255))
    cut = data.draw(st.integers(0, len(payload)))
    for damaged in (bytes(payload), bytes(payload[:cut]), bytes(payload) + b"\0\0"):
        try:
            values = entropy.decode(damaged, SHAPE, TABLES)
        except WireError:
            continue
        assert values.size == np.prod(SHAPE)
        assert np.isfinite(values).all()


@given(st.integers(0, 2), st.binary(max_size=80), st.sampled_from([(), (0,), (5,), (3, 4), (2, 3, 4), (2, 3, 4, 5)]))
def test_random_payloads_raise_nothing_but_wire_errors(form, rest, shape):
    try:
        values = entropy.decode(struct.pack("<Bf", form, 1.0) + rest, shape, Tables())
    except WireError:
        return
    assert values.size == np.prod(shape)


@given(st.binary(max_size=200), st.booleans())
def test_random_tables_raise_nothing_but_wire_errors(data, deflated):
    raw = zlib.compress(data, wbits=-15) if deflated else data
    try:
        table = parse_table(bytes([deflated]) + raw)
    except WireError:
        return
    assert (table.frequencies.sum(axis=1) == rans.SLOTS).all()
    assert table.frequencies.min() >= 1


def test_almost_every_cut_and_flip_in_the_code_stream_is_found_out():
    payload = PAYLOADS[1]
    found = 0
    places = range(len(payload) // 2, len(payload))
    for place in places:
        damaged = bytearray(payload)
        damaged[place] ^= 0x10
        try:
            entropy.decode(bytes(damaged), SHAPE, TABLES)
        except WireError:
            found += 1
    assert found > 0.9 * len(places)
    for cut in range(len(payload)):
        with pytest.raises(WireError):
            entropy.decode(payload[:cut], SHAPE, TABLES)


def test_every_pace_and_number_of_lanes_is_refused_but_the_right_one():
    array = activations((32, 4, 12, 20))
    symbols = entropy.quantise(array, deviations=1)
    table = train(symbols.values.reshape(array.shape))
    tables = Tables()
    tables.put(table)
    payload = entropy.encode_with(symbols, table, embed=False).payload
    lanes, pace = payload[9] + 1, payload[10]
    assert lanes >= 16
    assert pace > 0
    for place, right in ((9, lanes - 1), (10, pace)):
        for wrong in set(range(256)) - {right}:
            damaged = payload[:place] + bytes([wrong]) + payload[place + 1 :]
            with pytest.raises(WireError):
                entropy.decode(damaged, array.shape, tables)


@given(st.integers(1, 300), st.integers(1, 40), st.integers(1, 256), st.integers(0, 255))
def test_every_symbol_has_its_step_whatever_the_pace(slabs, slab, lanes, pace):
    plan = rans._plan(slabs * slab, slab, lanes, pace)
    assert [a for a, _, _ in plan] == [0, *(b for _, b, _ in plan[:-1])]
    assert plan[-1][1] == slabs * slab
    assert all(0 < b - a <= now <= lanes and a // slab == (b - 1) // slab for a, b, now in plan)
    assert sorted((now for _, _, now in plan), reverse=True) == [now for _, _, now in plan]


@pytest.mark.parametrize("step", [0.0, -1.0, float("nan"), float("inf")])
@pytest.mark.parametrize("form", [0, 1, 2])
def test_a_step_that_is_none_is_refused(step, form):
    with pytest.raises(WireError, match="is not a positive number"):
        entropy.decode(struct.pack("<Bf", form, step) + bytes(40), (4,))


def test_what_claims_too_much_is_refused():
    head = struct.pack("<Bf4x", 2, 1.0)
    few = Table(Model(2, 4, FLAT), 0, (0,), (), np.full((1, 7), -127, np.int8))
    said = head + bytes([len(few.data)]) + few.data
    with pytest.raises(WireError, match="1 lanes for 1000 slabs"):
        entropy.decode(said + bytes([0, 0, 0]) + bytes(50), (4 * 128 * 1000,))
    with pytest.raises(WireError, match="200 lanes for"):
        entropy.decode(said + bytes([199, 0, 0]) + bytes(500), (400,))
    with pytest.raises(WireError, match="does not end within"):
        parse_table(b"\1" + zlib.compress(bytes(1 << 20), wbits=-15))
    with pytest.raises(WireError, match="16 classes for 2 of 16 ranks"):
        parse_table(b"\0\x0d\xff" + bytes(3000))
    with pytest.raises(WireError, match="not distinct"):
        parse_table(b"\0\x01\x02\x00\x00" + bytes(18))
    with pytest.raises(WireError, match="unknown form 7"):
        entropy.decode(struct.pack("<Bf4x", 7, 1.0), (4,))


def test_values_beyond_float32_are_refused():
    with pytest.raises(WireError, match="NaN or infinity"):
        entropy.decode(struct.pack("<Bf4x", 0, 3e38) + escapes.pack(np.array([30000, 2])), (2,))
