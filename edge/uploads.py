"""How an activation fits what the device may spend: fewer samples first, then coarser, else not at all.

What an order may still spend is shared evenly by the activations that it has yet to send (`Purse.room`, `Agent`); what one
leaves goes to those after it.
"""

from collections.abc import Callable
from dataclasses import replace

from edge.wire import messages
from edge.wire.codec import Encoder, coarser
from edge.wire.messages import Activation

LEAST_SAMPLES = 4
"""With fewer samples in an activation it pays to code them more coarsely first."""
MOST_DEVIATIONS = 4.0
"""The coarsest step, in standard deviations."""
TRIES = 3
"""How often the number of samples is corrected for one message."""


def fit(
    message: Activation, room: int, codec: str, made: Callable[[str], str | Encoder], *, whole: bool = False
) -> Activation | None:
    """The activation within so many bytes: with fewer samples, or coded more coarsely; None where neither helps.

    What the hub knows of a batch costs next to nothing, and goes also where no other sample finds room.

    Args:
        message: with all samples; the first ones stay.
        room: bytes.
        codec: the text of the finest codec.
        made: what a codec's text stands for.
        whole: whether all samples have to stay, because a gradient for each of them is to come back.
    """
    least = len(message.labels) if whole else min(LEAST_SAMPLES, len(message.labels))
    text: str | None = codec
    while text is not None:
        found = _fewer(replace(message, codec=made(text)), room, least)
        if found is not None:
            return found
        text = coarser(text, MOST_DEVIATIONS)
    bare = message.first(0)
    served = bare.repeats is not None and len(bare.repeats.known) > 0
    return bare if served and len(messages.pack(bare)) <= room else None


def _fewer(message: Activation, room: int, least: int) -> Activation | None:
    count = len(message.labels)
    for _ in range(TRIES):
        size = len(messages.pack(message))
        if size <= room:
            return message
        count = min(count - 1, int(count * room / size))
        if count < least:
            return None
        message = message.first(count)
    return message if len(messages.pack(message)) <= room else None
