"""Messages: what the frames carry once their chunks are joined. One dataclass a thing; `README.md` has the bytes.

Control messages are a kind byte and compact JSON. What carries tensors is binary, because there bytes count. Every
message is checked in the same way when it is packed and when it is unpacked.
"""

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from edge.wire import fields, repeats
from edge.wire.codec import Array, Bytes, Encoder, parse_codec, pieces
from edge.wire.fields import Check
from edge.wire.frames import DEFAULT_LIMITS, U32, Limits, WireError
from edge.wire.inquiry import INQUIRY, Answer, Inquiry, read_answer, write_answer
from edge.wire.manifest import PARTS
from edge.wire.reader import DIFFERENCE, U16, Reader, check_difference, check_floats
from edge.wire.repeats import Repeats
from edge.wire.tables import Tables
from edge.wire.weights import EXACT, Difference

KINDS_OF_STEP = ("local", "exchange", "forward", "evaluate")
PURPOSES = ("train", "evaluate")
STEPS_LIMIT = 1_000_000
BATCH_LIMIT = 65_536
TENSORS_LIMIT = 4096
FORGET_LIMIT = 4096
"""Most samples that an order names to be forgotten; with more, all are."""

_TAG_BYTES = 4
_u32 = fields.integer(0, U32)
_count = fields.integer(0, fields.INTEGER_LIMIT)


@dataclass(frozen=True)
class Hello:
    """Device to hub: this is me, and this is where I stand."""

    name: str
    instance: int
    """Random for each process."""
    bundle: str
    """Its id, 64 hexadecimal digits."""
    samples: int
    test_samples: int
    classes: tuple[int, ...] | None = None
    """Labels present in the data; None where that is not known."""
    position: Mapping[str, int] | None = None
    """The order being carried out and its next step; None without one."""
    facts: Mapping[str, str | float] = field(default_factory=dict)
    """What there is to know of the board."""


@dataclass(frozen=True)
class Welcome:
    """Hub to device: you take part."""

    generation: int
    """How often this hub has started."""
    text: str = ""
    budget: Mapping[str, float] = field(default_factory=dict)
    """What the device may spend where its own configuration says nothing; names as in `edge.wire.budget`."""


@dataclass(frozen=True)
class Refusal:
    """Hub to device: no, and why."""

    reason: str
    fatal: bool
    """Whether trying again is in vain."""
    instance: int
    """The process that is meant: two devices may have come under one name."""


@dataclass(frozen=True)
class Goodbye:
    """Either way: this was all."""

    reason: str = ""


@dataclass(frozen=True)
class Report:
    """Device to hub: an order is done, or cannot be."""

    order: int
    round: int
    metrics: Mapping[str, Any]
    """Numbers, texts, None, and tables of them."""


@dataclass(frozen=True)
class Order:
    """Hub to device: so many steps of that kind."""

    bundle: bytes
    """First four bytes of the bundle's id: shapes depend on it."""
    order: int
    round: int
    kind: str
    first_step: int
    steps: int
    send: tuple[int, ...]
    """Steps that upload, ascending."""
    settings: Mapping[str, float]
    codec: str
    batch: int
    seed: int
    run: int = 0
    """Random for each run: an order of another run finds the device as its bundle was built."""
    state: Mapping[str, Array] = field(default_factory=dict)
    """Tensors to load first, always coded exactly, perhaps none: parameters and buffers by name, whole state vectors as `state.NAME`."""
    give: tuple[str, ...] = ()
    """Which parts of the device's model are wanted at the end, ascending: of `PARTS`."""
    beyond: int = 0
    """The most steps of its own that the device may do once a local order is done, while it has no connection to its hub."""
    complete: bool = False
    """Whether no activation may be given up: a device whose outbox is full waits, also without its hub."""
    allowance: int | None = None
    """The most bytes on the wire, headers included, that the activations of this order may take; None: any."""
    rounds: int = 1
    """How many rounds a local order that sends nothing covers: `steps` in this one, and the same in each behind it."""
    weights: str = EXACT
    """Codec of the weights that the device gives. Unless it is float32, those that come with the order are its base from then on."""
    difference: Difference | None = None
    """Weights to load first, as a difference to a base that the hub knows the device to hold; it gives its own as one to the base it has then."""
    skip_below: float = 0.0
    """Samples whose activation has changed by less than this share since they were sent are not sent again; 0: all are sent."""
    refresh_rounds: int = 0
    """They are sent again so many rounds after they were, however little they have changed."""
    forget: tuple[int, ...] | None = ()
    """Samples that the hub has no longer, ascending; None: all of them."""


@dataclass(frozen=True)
class Activation:
    """Device to hub: smashed data of one batch and its labels."""

    bundle: bytes
    order: int
    round: int
    step: int
    purpose: str
    smashed: Array
    """float32 `(batch, *smashed)`."""
    labels: Array
    """int64 `(batch,)` or `(batch, …)`."""
    codec: str | Encoder = "float32"
    """For packing; unpacked messages do not say."""
    repeats: Repeats | None = None
    """Which samples these are, and which others of the batch the hub has; None where the hub has not asked."""

    def first(self, count: int) -> "Activation":
        """The first so many samples of it."""
        rest = self.repeats.first(count) if self.repeats else None
        return replace(self, smashed=self.smashed[:count], labels=self.labels[:count], repeats=rest)


@dataclass(frozen=True)
class Gradient:
    """Hub to device: the loss by the smashed data of one batch."""

    bundle: bytes
    order: int
    round: int
    step: int
    gradient: Array
    """float32 `(batch, *smashed)`."""
    loss: float
    codec: str | Encoder = "float32"
    """For packing; unpacked messages do not say."""


@dataclass(frozen=True)
class State:
    """Device to hub: tensors of the parts that were wanted, and what the bundle's `end` graph hands out."""

    bundle: bytes
    order: int
    state: Mapping[str, Array]
    codec: str | Encoder = "float32"
    """For packing; unpacked messages do not say."""
    difference: Difference | None = None
    """Weights beside them, as a difference to the base of the order."""


Message = Hello | Welcome | Refusal | Order | Activation | Gradient | State | Report | Goodbye | Inquiry | Answer


def pack(message: Message) -> bytes:
    """The message's bytes.

    Raises:
        WireError: a value is outside what the format allows; the other side would refuse it.
    """
    number, writer, _ = _KINDS[type(message)]
    return b"".join((bytes([number]), *writer(message)))


def kind_of(message: type) -> bytes:
    """The byte with which messages of this class begin."""
    return bytes([_KINDS[message][0]])


def unpack(data: bytes, limits: Limits = DEFAULT_LIMITS, tables: Tables | None = None) -> Message:
    """The message in these bytes; `tables` are those of its sender, for the codec `entropy`.

    Raises:
        WireError: whatever is wrong with them; nothing else.
    """
    if len(data) > limits.message_bytes:
        raise WireError(f"message of {len(data)} bytes, the limit is {limits.message_bytes}", "too long")
    if not data:
        raise WireError("message is empty", "too short")
    if data[0] not in _READERS:
        raise WireError(f"unknown kind of message {data[0]}", "kind")
    reader = Reader(data, limits.message_bytes, tables)
    message: Message = _READERS[data[0]](reader)
    reader.end()
    return message


class Place(NamedTuple):
    """Where an activation belongs."""

    order: int
    step: int


def place_of_activation(data: bytes) -> Place | None:
    """The place of a packed activation, without unpacking its tensors; None where the bytes are another message."""
    if len(data) <= _STEP.size or data[0] != _KINDS[Activation][0]:
        return None
    _, order, _, step = _STEP.unpack_from(data, 1)
    return Place(order, step)


_U32 = struct.Struct("<I")
_STEP = struct.Struct(f"<{_TAG_BYTES}sIII")
SMASHED_AT = 1 + _STEP.size + 1
"""Where the smashed data of a packed activation start."""
_LOSS = struct.Struct("<f")
_STATE = struct.Struct(f"<{_TAG_BYTES}sI")
_REPEATS = struct.Struct("<BI")
_REPEATS_FORM = 1

_STEP_FIELDS: dict[str, Check] = {"order": _u32, "round": _u32, "step": _u32}

_FIELDS: dict[type, dict[str, Check]] = {
    Hello: {
        "name": fields.text(64),
        "instance": _u32,
        "bundle": fields.hexadecimal(64),
        "samples": _count,
        "test_samples": _count,
        "classes": fields.optional(fields.ascending(_count, fields.ENTRIES_LIMIT)),
        "position": fields.optional(fields.exactly(order=_u32, step=_u32)),
        "facts": fields.table(fields.scalar),
    },
    Welcome: {"generation": _u32, "text": fields.text(fields.TEXT_LIMIT), "budget": fields.table(fields.number)},
    Refusal: {"reason": fields.text(fields.TEXT_LIMIT), "fatal": fields.flag, "instance": _u32},
    Goodbye: {"reason": fields.text(fields.TEXT_LIMIT)},
    Inquiry: INQUIRY,
    Report: {"order": _u32, "round": _u32, "metrics": fields.root},
    Order: {
        "order": _u32,
        "round": _u32,
        "kind": fields.one_of(*KINDS_OF_STEP),
        "first_step": _u32,
        "steps": fields.integer(0, STEPS_LIMIT),
        "send": fields.ascending(_u32, STEPS_LIMIT),
        "settings": fields.table(fields.number),
        "codec": fields.text(64),
        "batch": fields.integer(1, BATCH_LIMIT),
        "seed": _u32,
        "run": _u32,
        "give": fields.ascending(fields.one_of(*PARTS), len(PARTS)),
        "beyond": fields.integer(0, STEPS_LIMIT),
        "complete": fields.flag,
        "allowance": fields.optional(_count),
        "rounds": fields.integer(1, STEPS_LIMIT),
        "weights": fields.text(64),
        "skip_below": fields.number,
        "refresh_rounds": _u32,
        "forget": fields.optional(fields.ascending(_u32, FORGET_LIMIT)),
    },
}

_LATER: dict[type, dict[str, Any]] = {
    Welcome: {"budget": {}},
    Order: {
        "beyond": 0,
        "complete": False,
        "allowance": None,
        "rounds": 1,
        "weights": EXACT,
        "skip_below": 0.0,
        "refresh_rounds": 0,
        "forget": (),
    },
}
"""Keys that are not written where they have this value, and have it where they are missing: they came after version 1."""


def _control_writer(message: Any) -> Sequence[Bytes]:
    return (_control(message),)


def _control(message: Any) -> bytes:
    kind = type(message)
    later = _LATER.get(kind, {})
    values = fields.checked(vars(message), _FIELDS[kind], kind.__name__.lower())
    return fields.dump({name: value for name, value in values.items() if name not in later or value != later[name]})


def _control_reader(kind: type[Any]) -> Callable[[Reader], Any]:
    later = _LATER.get(kind, {})
    name = kind.__name__.lower()
    return lambda reader: kind(**fields.checked({**later, **fields.load(reader.rest())}, _FIELDS[kind], name))


def _write_order(order: Order) -> Sequence[Bytes]:
    head = _control(order)
    _check_order(order)
    return (
        _tag(order.bundle),
        _U32.pack(len(head)),
        head,
        *_tensors(order.state, "float32"),
        *_difference(order.difference),
    )


def _read_order(reader: Reader) -> Order:
    tag = reader.take(_TAG_BYTES)
    (length,) = reader.numbers(_U32)
    head = fields.checked({**_LATER[Order], **fields.load(reader.take(length))}, _FIELDS[Order], "order")
    order = Order(bundle=tag, state=reader.tensors(), difference=reader.difference(), **head)
    _check_order(order)
    return order


def _check_order(order: Order) -> None:
    parse_codec(order.codec)
    parse_codec(order.weights)
    if order.send and not order.first_step <= order.send[0] <= order.send[-1] < order.first_step + order.steps:
        raise WireError(
            f"order {order.order} sends steps {order.send[0]} to {order.send[-1]}, "
            f"but has {order.steps} from {order.first_step}",
            "fields",
        )
    if order.rounds > 1 and (order.kind != "local" or order.send or order.rounds * order.steps > STEPS_LIMIT):
        raise WireError(
            f"order {order.order} ({order.kind}) has {order.rounds} rounds of {order.steps} steps and sends {len(order.send)}: "
            f"several rounds are for local orders that send nothing, up to {STEPS_LIMIT} steps",
            "fields",
        )
    if order.skip_below < 0 or (order.skip_below and order.kind not in ("local", "forward")):
        raise WireError(f"order {order.order} has skip_below = {order.skip_below}, and is {order.kind}", "fields")
    if order.beyond and order.kind != "local":
        raise WireError(f"order {order.order} has beyond = {order.beyond}, but is {order.kind}, not local", "fields")


def _write_activation(message: Activation) -> Sequence[Bytes]:
    if message.purpose not in PURPOSES:
        raise WireError(f"purpose {message.purpose!r} is none of {', '.join(PURPOSES)}", "fields")
    _check_activation(message)
    purpose = bytes([PURPOSES.index(message.purpose)])
    codec = message.codec if len(message.labels) else "float32"  # of no sample there is nothing to learn a table from
    return (
        _step(message),
        purpose,
        *pieces(message.smashed, codec),
        *pieces(message.labels, "labels"),
        *_write_repeats(message),
    )


def _write_repeats(message: Activation) -> Sequence[Bytes]:
    if message.repeats is None:
        return ()
    if message.purpose != "train":
        raise WireError(f"an activation to {message.purpose} has known samples", "known")
    lists = repeats.pack(message.repeats, len(message.labels))
    return _REPEATS.pack(_REPEATS_FORM, message.repeats.upload), *lists


def _read_activation(reader: Reader) -> Activation:
    tag, order, round_, step = reader.numbers(_STEP)
    purpose = reader.take(1)[0]
    if purpose >= len(PURPOSES):
        raise WireError(f"unknown purpose {purpose}", "fields")
    message = Activation(tag, order, round_, step, PURPOSES[purpose], reader.tensor(), reader.tensor())
    _check_activation(message)
    if not reader.goes_on_with(_REPEATS_FORM):
        return message
    return replace(message, repeats=_read_repeats(reader, message))


def _read_repeats(reader: Reader, message: Activation) -> Repeats:
    _, upload = reader.numbers(_REPEATS)
    if message.purpose != "train":
        raise WireError(f"an activation to {message.purpose} has known samples", "known")
    return repeats.unpack(upload, (reader.tensor(), reader.tensor(), reader.tensor()), len(message.labels))


def _check_activation(message: Activation) -> None:
    smashed, labels = message.smashed, message.labels
    if smashed.dtype.kind != "f" or labels.dtype.kind not in "iub":
        raise WireError(f"smashed data of {smashed.dtype} with labels of {labels.dtype}", "dtype")
    if not smashed.ndim or not labels.ndim or len(smashed) != len(labels):
        raise WireError(f"smashed data of shape {smashed.shape} with labels of shape {labels.shape}", "shape")


def _write_gradient(message: Gradient) -> Sequence[Bytes]:
    if not math.isfinite(message.loss) or abs(message.loss) > 3.4e38:
        raise WireError(f"loss {message.loss} is not a finite float32", "not finite")
    check_floats("gradient", message.gradient)
    return _step(message), _LOSS.pack(message.loss), *pieces(message.gradient, message.codec)


def _read_gradient(reader: Reader) -> Gradient:
    tag, order, round_, step = reader.numbers(_STEP)
    (loss,) = reader.numbers(_LOSS)
    if not math.isfinite(loss):
        raise WireError(f"loss {loss} is not finite", "not finite")
    gradient = reader.tensor()
    check_floats("gradient", gradient)
    return Gradient(tag, order, round_, step, gradient, loss)


def _write_state(message: State) -> Sequence[Bytes]:
    order = _u32("state.order", message.order)
    head = _STATE.pack(_tag(message.bundle), order)
    return head, *_tensors(message.state, message.codec), *_difference(message.difference)


def _read_state(reader: Reader) -> State:
    tag, order = reader.numbers(_STATE)
    return State(tag, order, reader.tensors(), difference=reader.difference())


def _step(message: Activation | Gradient) -> bytes:
    fields.checked(vars(message), _STEP_FIELDS, type(message).__name__.lower())
    return _STEP.pack(_tag(message.bundle), message.order, message.round, message.step)


def _tag(bundle: bytes) -> bytes:
    if len(bundle) != _TAG_BYTES:
        raise WireError(f"a bundle is named by {_TAG_BYTES} bytes, not {len(bundle)}", "fields")
    return bundle


def _tensors(tensors: Mapping[str, Array], codec: str | Encoder) -> list[Bytes]:
    if len(tensors) > TENSORS_LIMIT:
        raise WireError(f"{len(tensors)} tensors, the limit is {TENSORS_LIMIT}", "too long")
    parts: list[Bytes] = [U16.pack(len(tensors))]
    for name in sorted(tensors):
        label = fields.key("tensor", name).encode()
        if len(label) > 255:
            raise WireError(f"tensor name {name!r:.40} is longer than 255 bytes", "fields")
        parts += [bytes([len(label)]), label, *pieces(tensors[name], codec)]
    return parts


def _difference(difference: Difference | None) -> Sequence[Bytes]:
    if difference is None:
        return ()
    check_difference(difference)
    places = sum(1 << place for place, part in enumerate(PARTS) if part in difference.parts)
    head = DIFFERENCE.pack(places, _u32("difference.base", difference.base))
    return (head, *pieces(difference.values, difference.codec)) if places else (head,)


_KINDS: dict[type, tuple[int, Callable[[Any], Sequence[Bytes]], Callable[[Reader], Any]]] = {
    Hello: (1, _control_writer, _control_reader(Hello)),
    Welcome: (2, _control_writer, _control_reader(Welcome)),
    Refusal: (3, _control_writer, _control_reader(Refusal)),
    Order: (4, _write_order, _read_order),
    Activation: (5, _write_activation, _read_activation),
    Gradient: (6, _write_gradient, _read_gradient),
    State: (7, _write_state, _read_state),
    Report: (8, _control_writer, _control_reader(Report)),
    Goodbye: (9, _control_writer, _control_reader(Goodbye)),
    Inquiry: (10, _control_writer, _control_reader(Inquiry)),
    Answer: (11, write_answer, read_answer),
}
_READERS: dict[int, Callable[[Reader], Any]] = {number: reader for number, _, reader in _KINDS.values()}
