"""What the user can mend: errors that one plain sentence answers."""

MISTAKE = 2
"""Exit code for them: configuration, bundle, data, broker address, a name that is taken."""

FAULT = 1
"""Exit code for what the user did not cause."""


def mistakes() -> tuple[type[Exception], ...]:
    """Their types; everything else is a fault of ours and keeps its traceback."""
    # Imported when something has gone wrong: `cutlayer example` needs none of them.
    from edge.bundle import BundleError  # noqa: PLC0415
    from edge.energy.calibrate import CalibrationError  # noqa: PLC0415
    from edge.files import UnreadableError  # noqa: PLC0415
    from edge.link import LinkError  # noqa: PLC0415
    from edge.outbox import OutboxError  # noqa: PLC0415
    from edge.refusal import RefusalError  # noqa: PLC0415
    from edge.sensors import SensorError  # noqa: PLC0415
    from edge.wire.toml_fields import ConfigError  # noqa: PLC0415

    return (
        ConfigError, BundleError, SensorError, OutboxError, LinkError, RefusalError, UnreadableError, CalibrationError,
    )  # fmt: skip
