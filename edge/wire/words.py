"""What control messages are likely to say: the dictionary that their JSON is deflated with, so that keys cost next to nothing.

It is a part of the wire format. It may grow at its front, since distances count from its end, and what was coded before is read
as before; any other change makes it another dictionary, with another number.
"""

import zlib

from edge.wire.frames import WireError

__all__ = ["NUMBER", "deflate", "inflate"]

NUMBER = 1
"""First byte of what is deflated with this dictionary; JSON itself begins with a brace."""
WORTH = 96
"""Shorter texts stay as they are."""

# zlib finds what lies near the end with the fewest bits: the commonest last.
_DICTIONARY = (
    b'"cut":"cpu_seconds","cpu_seconds_per_round":,"cpu_seconds_spent":,"joules_per_round":,"joules_spent":null,'
    b'"coded":{"bytes":,"deviations":,"nonzeros":,"step":},"nonzero_share":0.'
    b'{"reason":"the run of rounds is over"}{"fatal":true,"instance":,"reason":"another device named is online"}'
    b'{"failed":"","refused_order":""}"expired_steps":{"count":,"first":,"last":}'
    b'{"bundle":"","classes":null,"facts":{"budget.up_per_run":,"cutlayer":"0.1.0","machine":"aarch64","machine":"x86_64",'
    b'"onnxruntime":"1.31.1","outbox":"","python":"3.11.","python":"3.13.","system":"Linux-6.-with-glibc2.36"},"instance":,'
    b'"name":"device-0","position":{"order":,"step":},"position":null,"samples":,"test_samples":}'
    b'{"budget":{"apart":1.0,"up_per_run":,"up_per_day":,"up_per_round":,"down_per_run":,"rate":},"generation":,"text":"welcome"}'
    b'"reason":"a simulated device shares its process with the others and the hub","missing":{"peak_rss_bytes":"",'
    b'"retransmitted":"a memory link has no TCP that could send again"},"source":"counted on the memory link"'
    b'"kind":"metered","kind":"sensor","reason":"no permission to read ","source":"intel-rapl:0","source":"counted at the link",'
    b'"delivery":{"duplicates":,"frames_repeated":,"frames_sent":,"questions":,"refused":},"refused":{"late activation":,'
    b'"gradient for a step that is over":},"step_seconds":0.00,"steps":,"started_over":true,"loss":0.'
    b'{"allowance":,"batch":32,"beyond":,"codec":"quantised:1","codec":"entropy:1.5","complete":true,"first_step":0,'
    b'"give":["head","lower"],"kind":"exchange","kind":"forward","kind":"evaluate","order":1,"round":1,"run":,"seed":0,'
    b'"send":[0,1,2,3],"settings":{"mu":,"lr":0.001,"weight_decay":1e-05},"steps":}'
    b'{"batch":32,"codec":"float32","first_step":0,"give":[],"kind":"local","order":,"round":,"run":,"seed":0,"send":[],'
    b'"settings":{"beta":0.0,"lr":0.001,"temperature":0.07,"weight_decay":1e-05},"steps":1}'
    b'{"metrics":{"beyond_steps":0,"budget":{"apart":1.0,"bytes":,"down_left":null,"down_spent":,"messages":,"samples":,'
    b'"up_left":,"up_per_run":,"up_spent":,"withheld":0},"cpu_seconds":0.,"delivery":{"frames_sent":},"elements":,"energy":'
    b'{"joules":null,"kind":null,"reason":"no meter: no RAPL under /sys/class/powercap, no power sensor under /sys/class/hwmon, '
    b'no battery under /sys/class/power_supply","resolution":null,"source":null},"evaluation_received":,"evaluation_sent":,'
    b'"expired":0,"expired_bytes":0,"flops":,"loss":0.,"paper_bytes":,"paper_flops":,"peak_rss_bytes":,"received":,"refused":{},'
    b'"restarts":0,"retransmitted":0,"seconds":0.0,"sent":,"source":"kernel TCP_INFO","started_over":false,'
    b'"step_seconds":0.00,"steps":1},"order":1,"round":1}'
)


def deflate(text: bytes) -> bytes:
    """The text, or what stands for it where that is shorter."""
    if len(text) < WORTH:
        return text
    # A window that holds the dictionary and no more: making a larger one ready takes three times as long as the coding.
    coder = zlib.compressobj(9, zlib.DEFLATED, -12, 5, zlib.Z_DEFAULT_STRATEGY, _DICTIONARY)
    coded = bytes([NUMBER]) + coder.compress(text) + coder.flush()
    return min(coded, text, key=len)


def inflate(data: bytes, limit: int) -> bytes:
    """What `deflate` was given.

    Args:
        data: as it came.
        limit: longest text.

    Raises:
        WireError: it is damaged, or longer.
    """
    if data[:1] != bytes([NUMBER]):
        return data
    decoder = zlib.decompressobj(-zlib.MAX_WBITS, zdict=_DICTIONARY)
    try:
        text = decoder.decompress(data[1:], limit + 1)
    except zlib.error as error:
        raise WireError(f"damaged deflate stream: {error}", "json") from error
    if len(text) > limit:
        raise WireError(f"more than {limit} bytes of JSON", "too long")
    if not decoder.eof or decoder.unused_data:
        raise WireError("deflate stream is cut off, or has bytes behind its end", "json")
    return text
