"""What a user of the exporter can get wrong, as one exception."""


class ExportError(Exception):
    """A model, a cut or a bundle that cannot be used; the message is a plain sentence that says why and what to do."""
