import zlib
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge.wire import words
from edge.wire.codec import encode
from edge.wire.frames import Limits, WireError
from edge.wire.messages import (
    Activation,
    Goodbye,
    Gradient,
    Hello,
    Order,
    Refusal,
    Report,
    State,
    Welcome,
    pack,
    place_of_activation,
    unpack,
)

DEFLATED = "08014349e7b85205dc1979f9a076930ebcdd04b516165ca630971b1a585a9a1a1a9a19999b9b9b212cb6845b6c540b00"
TAG = b"\xab\xcd\xef\x01"
HELLO = Hello(
    name="wearer-1",
    instance=7,
    bundle="ab" * 32,
    samples=35,
    test_samples=40,
    classes=(0, 2, 6),
    position={"order": 3, "step": 1},
    facts={"machine": "aarch64", "cores": 4, "memory_mib": 0.5},
)
ORDER = Order(
    bundle=TAG,
    order=9,
    round=2,
    kind="local",
    first_step=0,
    steps=8,
    send=(0, 3),
    settings={"lr": 0.001, "temperature": 0.5},
    codec="quantised:0.5",
    batch=32,
    seed=5,
    state={"conv.weight": np.array([[1.0, -2.5]], np.float32), "count": np.array(3)},
    run=77,
    give=("lower",),
)
ACTIVATION = Activation(
    bundle=TAG,
    order=9,
    round=2,
    step=3,
    purpose="train",
    smashed=np.array([[0.0, 1.5], [2.0, 0.0]], np.float32),
    labels=np.array([6, 0]),
)
GRADIENT = Gradient(TAG, 9, 2, 3, np.array([[0.25, -1.0]], np.float32), 1.5)
STATE = State(TAG, 9, {"b": np.array([1.0], np.float32), "a": np.array([2.0], np.float32)})
FIELD_REPORT = Report(
    1634434809,
    5,
    {
        "beyond_steps": 0,
        "budget": {"bytes": 70442, "down_left": None, "down_spent": 2294, "messages": 1, "samples": 11, "up_left": 19735,
                   "up_per_run": 100000.0, "up_spent": 80265, "withheld": 0},
        "cpu_seconds": 0.0285063,
        "delivery": {"frames_sent": 21},
        "elements": 17600,
        "energy": {"joules": None, "kind": None, "reason": "no meter: no RAPL under /sys/class/powercap, no power sensor under "
                   "/sys/class/hwmon, no battery under /sys/class/power_supply", "resolution": None, "source": None},
        "evaluation_received": 684, "evaluation_sent": 1229402, "expired": 0, "expired_bytes": 0, "flops": 88569600.0,
        "loss": 0.000324675, "paper_bytes": 37076, "paper_flops": 20160000.0, "peak_rss_bytes": 86749184, "received": 3268,
        "refused": {}, "restarts": 0, "retransmitted": 0, "seconds": 0.0713908, "sent": 1311071, "source": "kernel TCP_INFO",
        "started_over": False, "step_seconds": 0.00376351, "steps": 1,
    },
)  # fmt: skip
REPORT = Report(9, 2, {"loss": 0.5, "energy": {"joules": None, "source": "none"}, "failed": False, "sent": 1 << 40})
MESSAGES = [
    HELLO,
    replace(HELLO, classes=None, position=None, facts={}),
    Welcome(3, "welcome"),
    Refusal("another device has this name", fatal=True, instance=7),
    ORDER,
    replace(ORDER, kind="evaluate", send=(), state={}, steps=0),
    replace(ORDER, beyond=500),
    ACTIVATION,
    GRADIENT,
    STATE,
    REPORT,
    Goodbye("all rounds are done"),
]


def same(left, right):
    """Equal, arrays by value; the codec is not carried."""
    if isinstance(left, np.ndarray):
        return left.shape == right.shape and np.array_equal(left, right)
    if isinstance(left, dict):
        return left.keys() == right.keys() and all(same(left[name], right[name]) for name in left)
    return left == right


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_a_message_comes_back_as_it_was(message):
    back = unpack(pack(message))
    assert type(back) is type(message)
    for field in fields(message):
        assert same(getattr(message, field.name), getattr(back, field.name)), field.name


GOLDEN = {
    Hello: (
        b'\x01{"bundle":"' + b"ab" * 32 + b'","classes":[0,2,6],'
        b'"facts":{"cores":4,"machine":"aarch64","memory_mib":0.5},'
        b'"instance":7,"name":"wearer-1","position":{"order":3,"step":1},"samples":35,"test_samples":40}'
    ).hex(),
    Welcome: b'\x02{"generation":3,"text":"welcome"}'.hex(),
    Refusal: b'\x03{"fatal":true,"instance":7,"reason":"another device has this name"}'.hex(),
    Order: "04" + "abcdef01" + "ba000000"
    + (
        b'{"batch":32,"codec":"quantised:0.5","first_step":0,"give":["lower"],"kind":"local","order":9,"round":2,'
        b'"run":77,"seed":5,"send":[0,3],"settings":{"lr":0.001,"temperature":0.5},"steps":8}'
    ).hex()
    + "0200"
    + "0b" + b"conv.weight".hex() + "01" "02" "01" "02" "08" "0000803f" "000020c0"
    + "05" + b"count".hex() + "00" "00" "02" "00" "03",
    Activation: "05" + "abcdef01" + "09000000" + "02000000" + "03000000" + "00"
    + "01" "02" "02" "02" "10" "00000000" "0000c03f" "00000040" "00000000"
    + "05" "01" "02" "02" "06" "06",
    Gradient: "06" + "abcdef01" + "09000000" + "02000000" + "03000000" + "0000c03f"
    + "01" "02" "01" "02" "08" "0000803e" "000080bf",
    State: "07" + "abcdef01" + "09000000" + "0200"
    + "01" "61" + "01" "01" "01" "04" "00000040"
    + "01" "62" + "01" "01" "01" "04" "0000803f",
    Report: (
        b'\x08{"metrics":{"energy":{"joules":null,"source":"none"},"failed":false,"loss":0.5,"sent":1099511627776},'
        b'"order":9,"round":2}'
    ).hex(),
    Goodbye: b'\x09{"reason":"all rounds are done"}'.hex(),
}  # fmt: skip


@pytest.fixture
def plain(monkeypatch):
    """Nothing is worth deflating: the JSON stands there as it is, as any writer may leave it."""
    monkeypatch.setattr(words, "WORTH", 1 << 20)


@pytest.mark.parametrize("kind", GOLDEN, ids=lambda kind: kind.__name__)
def test_the_bytes_of_each_kind(kind, plain):
    message = next(message for message in MESSAGES if type(message) is kind)
    assert pack(message).hex() == GOLDEN[kind]


@pytest.mark.parametrize("kind", [Hello, Order, Report], ids=lambda kind: kind.__name__)
def test_what_is_not_deflated_is_read_as_well(kind):
    message = next(message for message in MESSAGES if type(message) is kind)
    long, short = bytes.fromhex(GOLDEN[kind]), pack(message)
    assert len(short) < len(long)
    assert pack(unpack(long)) == short


def test_a_deflated_report_of_today_is_read_for_ever():
    """The dictionary is part of the wire: another one would make this something else."""
    assert unpack(bytes.fromhex(DEFLATED)) == REPORT


def test_a_report_in_the_field_is_short():
    """It goes up every round, however small the budget: 914 bytes of JSON."""
    assert len(pack(FIELD_REPORT)) < 200
    coded = {"bytes": 12345, "deviations": 26401.2, "nonzeros": 10341, "step": 8213.77}
    told = {**FIELD_REPORT.metrics, "coded": coded, "nonzero_share": 0.5266}
    assert len(pack(replace(FIELD_REPORT, metrics=told))) < len(pack(FIELD_REPORT)) + 35


@pytest.mark.parametrize("data", [bytes.fromhex("0801ff"), b"\x08\x01", b"\x08\x02{}"])
def test_damaged_deflated_json_is_refused(data):
    with pytest.raises(WireError):
        unpack(data)


def test_json_that_swells_is_refused_before_it_is_there():
    coder = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = coder.compress(b" " * (64 << 20)) + coder.flush()
    with pytest.raises(WireError, match="more than 4194304 bytes of JSON"):
        unpack(b"\x08\x01" + bomb)


def test_an_order_says_beyond_only_where_it_is_not_0(plain):
    packed = pack(ORDER)
    further = pack(replace(ORDER, beyond=500))
    assert further == packed.replace(b"\xba\0\0\0{", b"\xc7\0\0\0{").replace(
        b'{"batch":32,', b'{"batch":32,"beyond":500,'
    )
    assert unpack(packed).beyond == 0  # as an older hub writes it


def test_the_place_of_an_activation_is_read_without_its_tensors():
    places = {type(message): place_of_activation(pack(message)) for message in MESSAGES}
    assert places.pop(Activation) == (9, 3)
    assert set(places.values()) == {None}
    assert place_of_activation(b"") is None
    assert place_of_activation(pack(ACTIVATION)[:16]) is None


def test_an_activation_costs_few_bytes_beyond_its_data():
    assert len(pack(ACTIVATION)) == 4 * 4 + 2 + 18 + 5 + 4
    smashed = np.zeros((32, 32, 50), np.float32)
    big = replace(ACTIVATION, smashed=smashed, labels=np.zeros(32, np.int64))
    assert len(pack(big)) - smashed.nbytes == 18 + 8 + 5


def test_fields_of_a_later_version_are_passed_over():
    assert unpack(b'\x09{"reason":"done","mood":"good"}') == Goodbye("done")


def test_state_in_an_order_is_exact_whatever_the_codec():
    weights = np.random.default_rng(0).standard_normal(50).astype(np.float32)
    back = unpack(pack(replace(ORDER, state={"w": weights})))
    np.testing.assert_array_equal(back.state["w"], weights)


@pytest.mark.parametrize(
    ("message", "said"),
    [
        (replace(HELLO, name="x" * 65), "hello.name = .* up to 64 characters"),
        (replace(HELLO, instance=-1), "hello.instance = -1 is not a whole number from 0 to 4294967295"),
        (replace(HELLO, bundle="xyz"), "hello.bundle = 'xyz' is not 64 hexadecimal digits"),
        (replace(HELLO, samples=True), "hello.samples = True"),
        (replace(HELLO, classes=(2, 1)), "hello.classes is not in ascending order"),
        (replace(HELLO, position={"order": 1}), "hello.position lacks step"),
        (replace(HELLO, position=5), "hello.position = 5 is not a table"),
        (replace(HELLO, facts={"x": [1]}), r"hello.facts.x = \[1\]"),
        (replace(HELLO, facts={"x": "\ud800"}), "hello.facts.x"),
        (Refusal("no", fatal=1, instance=0), "refusal.fatal = 1 is neither true nor false"),
        (Report(1, 1, {"loss": float("nan")}), "report.metrics.loss = nan is not a finite number"),
        (Report(1, 1, {"loss": 10**5000}), "does not fit 64 bits"),
        (Report(1, 1, 5), "report.metrics is not a table"),
        (Report(1, 1, {"a": {"b": np.float32(1)}}), "report.metrics.a.b"),
        (replace(ORDER, kind="dance"), "order.kind = 'dance' is none of local, exchange"),
        (replace(ORDER, send=(3, 0)), "order.send is not in ascending order"),
        (replace(ORDER, send=(7, 8)), "order 9 sends steps 7 to 8, but has 8 from 0"),
        (replace(ORDER, steps=10**7), "order.steps"),
        (replace(ORDER, batch=0), "order.batch = 0"),
        (replace(ORDER, beyond=10**7), "order.beyond = 10000000 is not a whole number from 0 to 1000000"),
        (replace(ORDER, kind="exchange", beyond=1), "order 9 has beyond = 1, but is exchange, not local"),
        (replace(ORDER, codec="gzip"), "unknown codec"),
        (replace(ORDER, settings={"lr": float("inf")}), "order.settings.lr = inf"),
        (replace(ORDER, bundle=b"abc"), "named by 4 bytes, not 3"),
        (replace(ORDER, state={"x" * 256: np.zeros(1)}), "longer than 255 bytes|up to 256"),
        (replace(ACTIVATION, purpose="fun"), "purpose 'fun'"),
        (replace(ACTIVATION, step=-1), "activation.step = -1"),
        (replace(ACTIVATION, labels=np.array([1])), r"shape \(2, 2\) with labels of shape \(1,\)"),
        (replace(ACTIVATION, labels=np.array([1.0, 2.0])), "labels of float64"),
        (replace(ACTIVATION, smashed=np.array([[1], [2]])), "smashed data of int64"),
        (replace(GRADIENT, loss=float("nan")), "loss nan"),
        (replace(GRADIENT, gradient=np.array([1])), "gradient of int64"),
        (replace(STATE, order=1 << 32), "state.order"),
    ],
)
def test_what_the_other_side_would_refuse_is_not_sent(message, said):
    with pytest.raises(WireError, match=said):
        pack(message)


NESTED = b'{"order":1,"round":1,"metrics":' + b'{"a":' * 12 + b"1" + b"}" * 13


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "empty"),
        (b"\x00{}", "unknown kind of message 0"),
        (b"\x63{}", "unknown kind of message 99"),
        (b"\x09", "damaged JSON"),
        (b"\x09{", "damaged JSON"),
        (b"\x09\xff\xfe", "damaged JSON"),
        (b"\x09" + b"[" * 100_000, "damaged JSON"),
        (b"\x09[]", "holds list, not an object"),
        (b"\x09{}", "goodbye lacks reason"),
        (b'\x09{"reason":5}', "goodbye.reason = 5"),
        (b'\x02{"generation":NaN,"text":""}', "holds NaN"),
        (b'\x02{"generation":1e400,"text":""}', "generation = inf"),
        (b'\x02{"generation":' + b"9" * 5000 + b',"text":""}', "damaged JSON"),
        (b'\x09{"reason":"\\ud800"}', "goodbye.reason"),
        (b"\x08" + NESTED, "nested more than 8 deep"),
        (pack(ACTIVATION)[:10], "cut off"),
        (pack(ACTIVATION)[:-1], "payload of 2 bytes, 1 are there"),
        (pack(ACTIVATION) + b"x", "1 bytes too many"),
        (pack(ACTIVATION)[:17] + b"\x05" + pack(ACTIVATION)[18:], "unknown purpose 5"),
        (pack(GRADIENT)[:17] + b"\x00\x00\xc0\x7f" + pack(GRADIENT)[21:], "loss nan"),
        (pack(GRADIENT)[:21] + encode(np.array([1]), "integers"), "gradient of int64"),
        (pack(STATE)[:11] + b"\x01\xff", "not UTF-8"),
        (pack(STATE)[:9] + b"\x02\x00" + (b"\x01a" + encode(np.zeros(1), "float32")) * 2, "comes twice"),
        (b"\x04abcd\xff\xff\xff\xff{}", "cut off"),
    ],
)
def test_a_damaged_message_is_refused(data, said):
    with pytest.raises(WireError, match=said):
        unpack(data)


def test_one_limit_holds_for_all_tensors_of_a_message_together():
    packed = pack(State(TAG, 1, {name: np.zeros(1000, np.float32) for name in "abc"}, "quantised:1"))
    assert len(packed) < 200
    with pytest.raises(WireError, match="takes 4000 bytes, the limit is 3000"):
        unpack(packed, Limits(message_bytes=11_000, partial_bytes=11_000))


def test_a_message_above_the_limit_is_refused_unread():
    with pytest.raises(WireError, match="message of 101 bytes, the limit is 100"):
        unpack(bytes(101), Limits(message_bytes=100, partial_bytes=100))


KINDS = {type(message) for message in MESSAGES}


@given(st.binary(max_size=80))
def test_random_bytes_raise_nothing_but_wire_errors(data):
    try:
        message = unpack(data)
    except WireError:
        return
    assert type(message) in KINDS


@given(st.sampled_from(MESSAGES), st.data())
def test_a_changed_message_is_refused_or_still_a_message(message, data):
    packed = bytearray(pack(message))
    for _ in range(data.draw(st.integers(1, 3))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    try:
        changed = unpack(bytes(packed))
    except WireError:
        return
    assert type(changed) in KINDS
    # What came out is whole: it can be said again, and then means the same.
    assert type(unpack(pack(changed))) is type(changed)


json_values = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**63) + 1, 2**63 - 1)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
    lambda inner: st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters(exclude_categories=["Cs"]), max_size=5), json_values, max_size=3))
def test_any_metrics_come_back(metrics):
    assert unpack(pack(Report(1, 1, metrics))) == Report(1, 1, metrics)
