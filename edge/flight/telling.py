"""What stands in a recording, in words."""

from edge.flight import trace
from edge.flight.trace import Entry, Sketch
from edge.wire import messages
from edge.wire.frames import _DATA_HEAD, Ack, Data, WireError, parse
from edge.wire.inquiry import Answer, Inquiry
from edge.wire.messages import Activation, Goodbye, Gradient, Hello, Message, Order, Refusal, Report, State, Welcome


def words(entry: Entry) -> str:
    """What an entry says."""
    match entry:
        case trace.Published():
            return f"{of_payload(entry.payload)} published on {entry.topic}"
        case trace.Put():
            return f"message {entry.number}: {of_message(entry.message)}"
        case trace.Dropped():
            return f"messages {', '.join(map(str, entry.numbers))} done or given up"
        case trace.Fact():
            return f"{entry.name} = {entry.value}"
        case trace.State():
            return f"a state of CRC {entry.crc:08x}"
        case trace.Committed():
            return f"a commit that fails: {entry.reason}" if entry.reason else "a commit"
        case trace.Failed():
            return f"a payload that does not leave: {entry.reason}"
    return _BARE[type(entry)]


_BARE: dict[type, str] = {
    trace.Clock: "a look at the clock",
    trace.Up: "a look at the link",
    trace.Down: "a look at the link",
    trace.Polled: "a question for news of the link",
    trace.Next: "the next frame from the hub",
    trace.Cleared: "all messages under new numbers",
}


def of_payload(payload: Sketch) -> str:
    """What was handed to the link."""
    chunk = chunk_of(payload)
    if chunk:
        size = f"{payload.length} bytes, CRC {int.from_bytes(payload.tail or payload.head[-4:], 'little'):08x}"
        return f"chunk {chunk.index + 1} of {chunk.count} of message {chunk.number} ({size})"
    ack = _ack_of(payload)
    if ack:
        return of_ack(ack)
    return payload.head.decode() if payload.head.isascii() else f"an acknowledgement of {payload.length} bytes"


def asks(payload: Sketch) -> bool:
    """Whether it is an acknowledgement that asks what the other side has."""
    ack = _ack_of(payload)
    return ack is not None and ack.asks > 0


def _ack_of(payload: Sketch) -> Ack | None:
    try:
        frame = parse(payload.head) if payload.whole else None
    except WireError:
        return None
    return frame if isinstance(frame, Ack) else None


def of_ack(ack: Ack) -> str:
    """An acknowledgement."""
    done = f"done to {ack.floor}" + "".join(f", {first} to {last}" for first, last in ack.done)
    asks = f", asks {ack.asks}" if ack.asks else ""
    answers = f", answers {ack.answers}" if ack.answers else ""
    return f"acknowledgement: {done}{', holds ' + str(len(ack.held)) + ' runs of chunks' if ack.held else ''}{asks}{answers}"


def chunk_of(payload: Sketch) -> Data | None:
    """The numbers of a chunk, without its contents; None where it is something else."""
    head = payload.head
    if len(head) < _DATA_HEAD.size or not head.startswith(DATA):
        return None
    _, _, _, epoch, lowest, number, index, count, total = _DATA_HEAD.unpack_from(head)
    return Data(epoch, lowest, number, index, count, total, b"")


ANSWER = messages.pack(Answer(0, reason="none"))[:1]
"""How the answer to an inquiry begins."""
DATA = Data(1, 1, 1, 0, 1, 0, b"").pack()[:4]
"""How the frame of a chunk begins."""


def of_message(message: Sketch) -> str:
    """A message that was put."""
    place = messages.place_of_activation(message.head)
    if place:  # its table may be known to the hub alone
        size = "" if message.whole else f" ({message.length} bytes)"
        return f"activation of order {place.order}, step {place.step}{size}"
    if not message.whole:
        return f"{'profile' if message.head[:1] == ANSWER else 'weights'} ({message.length} bytes)"
    try:
        return of(messages.unpack(message.head))
    except WireError as error:
        return f"{message.length} bytes that are no message: {error}"


def of(message: Message) -> str:
    """A message, whichever way it goes."""
    match message:
        case Hello():
            position = message.position
            stands = f", at step {position['step']} of order {position['order']}" if position else ""
            return f"hello, {message.samples} samples{stands}"
        case Welcome():
            return f"welcome, by generation {message.generation} of the hub"
        case Refusal():
            return f"refusal: {message.reason}"
        case Goodbye():
            return f"goodbye {message.reason}".rstrip()
        case Report():
            fault = message.metrics.get("failed") or message.metrics.get("refused_order")
            return f"report of order {message.order}{f': {fault}' if fault else ''}"
        case Order():
            sends = f", {len(message.send)} of them are sent" if message.send else ""
            loads = f", with {len(message.state)} tensors" if message.state else ""
            return f"order {message.order} ({message.kind}, {message.steps} steps{sends}{loads})"
        case Activation():
            return f"activation of order {message.order}, step {message.step}"
        case Gradient():
            return f"gradient for order {message.order}, step {message.step}"
        case State():
            return f"weights of order {message.order}"
        case Inquiry():
            return f"inquiry {message.number} what a step costs"
        case Answer():
            return f"answer to inquiry {message.number}{f': {message.reason}' if message.reason else ''}"
