"""What keeps a board from being flashed, as one exception."""

from export.errors import ExportError


class FlashError(ExportError):
    """A card, a board or a tree that cannot be flashed; the message is a plain sentence that says why and what to do."""
