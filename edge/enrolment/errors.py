"""What goes wrong on the way to a certificate."""


class EnrolmentError(ValueError):
    """A claim, key or certificate cannot be used; the message says why."""


class RefusedError(EnrolmentError):
    """The hub has answered, and says no."""


class UnreachableError(EnrolmentError):
    """The hub has not answered: it may later."""
