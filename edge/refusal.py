"""The hub's no."""


class RefusalError(RuntimeError):
    """The hub will not work with this device; the message is the hub's own sentence."""
