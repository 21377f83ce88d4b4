"""What goes wrong with trust and can be mended."""


class TrustError(RuntimeError):
    """The fleet's folder, a claim or a certificate cannot be used as asked; the message says why and what would help."""


class ClaimError(TrustError):
    """A claim or a certificate that does not let its bearer in."""
