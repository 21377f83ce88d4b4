"""What a device is told on its own disk: one TOML file, which the environment may override.

`CUTLAYER_BROKER_URL=mqtt://10.0.0.2` overrides `url` of `[broker]`. `describe()` prints an annotated example made from the
dataclasses below, so that documentation and code cannot drift apart.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from edge.energy.config import EnergyConfig
from edge.wire import toml_fields
from edge.wire.budget import BudgetConfig
from edge.wire.toml_fields import ConfigError, Example, PathUnless, Pattern, Range

__all__ = [
    "BrokerConfig", "BundleConfig", "ConfigError", "DataConfig", "DeviceConfig", "EnergyConfig", "EnrolmentConfig", "IdentityConfig",
    "RunConfig", "ServiceConfig", "UpdateConfig", "describe", "load",
]  # fmt: skip

PREFIX = "CUTLAYER"
HEADING = """Configuration of a cutlayer device.
Relative paths start at the folder of this file. Any key can be overridden by the
environment: CUTLAYER_BROKER_URL stands for url of [broker]."""

# A name becomes a level of an MQTT topic and of a path, so '/', '+', '#' and a leading dot have no place in it.
NAME = Pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "a name of 1 to 64 letters, digits, '.', '_' or '-'")
URL = Pattern(
    r"mqtts?://([^\s/:@\[\]]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?/?", "a URL like mqtt://host:1883 or mqtts://host:8883"
)
FUNCTION = r"[A-Za-z_][\w.]*:[A-Za-z_]\w*"
SYNTHETIC = r"synthetic(:\d+)?"
SOURCE = PathUnless(
    rf"{FUNCTION}|{SYNTHETIC}", "the path of a .npz file or of a folder of them, or package.module:function"
)


@dataclass(frozen=True)
class IdentityConfig:
    """Who this device is, and where it keeps what must survive a power cut."""

    name: Annotated[str, NAME, Example("wearer-1")]
    """The device's name, unlike that of any other in its fleet."""

    state_directory: Path = Path("state")
    """Folder for weights, the ledger of steps and messages not yet sent. One device only may use it."""


@dataclass(frozen=True)
class BrokerConfig:
    """The MQTT broker that device and hub meet at. mqtt:// is plain, mqtts:// is TLS."""

    url: Annotated[str, URL, Example("mqtt://192.168.1.10:1883")]
    """Where the broker listens; without a port 1883, with TLS 8883."""

    username: Annotated[str | None, Example("wearer-1")] = None
    """The name to log in with, where the broker asks for one."""

    password_file: Annotated[Path | None, Example("password")] = None
    """A file whose first line is the password, so that no secret stands here."""

    ca: Annotated[Path | None, Example("ca.pem")] = None
    """PEM file of the authority that signed the broker's certificate; without it the system's are trusted."""

    certificate: Annotated[Path | None, Example("wearer-1.pem")] = None
    """PEM file of this device's own certificate, for brokers that want one."""

    key: Annotated[Path | None, Example("wearer-1.key")] = None
    """PEM file of the key that belongs to the certificate."""

    keepalive_seconds: Annotated[int, Range(5, 65535)] = 60
    """Longest silence on the line; a dead link is noticed after about twice this time."""

    connect_seconds: Annotated[float, Range(1, 86400)] = 30.0
    """How long a new device tries to connect before it gives up; one that knows its run tries for ever, and goes on meanwhile."""

    congestion: Annotated[
        str | None, Pattern(r"[a-z0-9_]{1,15}", "a name of 1 to 15 of a-z, 0-9 and '_'"), Example("bbr")
    ] = None
    """TCP congestion control of the socket, used where the kernel has it; bbr keeps its rate on lossy links."""

    @property
    def tls(self) -> bool:
        """Whether the link is encrypted."""
        return self.url.startswith("mqtts://")

    @property
    def port(self) -> int:
        """The port of the URL, or the usual one."""
        given = re.search(r":(\d+)/?$", self.url)
        return int(given[1]) if given else 8883 if self.tls else 1883

    @property
    def host(self) -> str:
        """The host of the URL, without the brackets of an IPv6 address."""
        rest = self.url.split("://", 1)[1].rstrip("/")
        return re.sub(r":\d+$", "", rest).strip("[]")

    def problems(self) -> Iterator[str]:
        """Yields what does not go together, and the files that are not there."""
        if not 1 <= self.port <= 65535:
            yield f'url = "{self.url}": the port must be from 1 to 65535'
        if (self.certificate is None) != (self.key is None):
            yield "certificate and key belong together: give both or neither"
        if self.password_file is not None and self.username is None:
            yield "password_file is given without username: add username"
        for name in ("ca", "certificate", "key"):
            if getattr(self, name) is not None and not self.tls:
                yield f'{name} is for TLS, but url = "{self.url}" is plain: write mqtts://'
        if self.password_file is not None and not self.password_file.is_file():
            yield f'password_file = "{self.password_file}": there is no such file'

    def missing(self) -> Iterator[str]:
        """Yields what is needed for TLS and is not there; enrolment would bring it."""
        for name in ("ca", "certificate", "key"):
            path = getattr(self, name)
            if path is not None and not path.is_file():
                yield f'{name} = "{path}": there is no such file'


@dataclass(frozen=True)
class EnrolmentConfig:
    """How this device comes to its certificate: its key is made here, the hub signs. [broker] says where both are kept."""

    url: Annotated[
        str | None,
        Pattern(r"https://([^\s/:@\[\]]+|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?/?", "a URL like https://host:8443"),
        Example("https://hub.local:8443"),
    ] = None
    """Where the hub of cutlayer-hub serve --tls takes claims and renews certificates."""

    claim: Annotated[Path | None, Example("wearer-1.claim")] = None
    """File of the claim that cutlayer-hub enrol has made for this device; it works once, and is removed then."""

    def problems(self) -> Iterator[str]:
        """Yields what does not go together."""
        if self.claim is not None and self.url is None:
            yield "claim is given without url: add url"


@dataclass(frozen=True)
class BundleConfig:
    """What the device computes: graphs, initial state and manifest, made by cutlayer-export build."""

    path: Annotated[Path, Example("device.bundle")]
    """The bundle to start with."""


@dataclass(frozen=True)
class DataConfig:
    """Where batches come from."""

    source: Annotated[str, SOURCE, Example("device.npz")]
    """A .npz file with x and y (and test_x, test_y), a folder of such pieces that may grow, a function of one's own as
    package.module:function, or synthetic:SAMPLES for a check without data."""

    only_tested: bool = False
    """Whether this device takes no part in training and may do without x and y of its own."""


@dataclass(frozen=True)
class RunConfig:
    """How the device works."""

    fleet: Annotated[str, NAME] = "fleet"
    """The fleet it belongs to: the first level of its topics. Devices and hub must name the same."""

    threads: Annotated[int, Range(1, 64)] = 1
    """Threads of one training step."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """What is worth a line on stderr."""

    chunk_bytes: Annotated[int, Range(1024, 524288)] = 8192
    """Largest piece of a message on the wire. Small pieces let urgent ones through on slow links."""

    window_bytes: Annotated[int, Range(1024, 67108864)] = 131072
    """Most bytes under way without an answer from the hub. More of them fill a lossy link with bbr (524288: 0.8 to 0.98 of what TCP can
    do at 1 and 5 % loss, 131072: 0.7 and 0.5), but what is urgent then waits behind them, three times as long."""

    outbox_bytes: Annotated[int, Range(65536, 1 << 40)] = 67108864
    """Most bytes of messages that wait for the hub, on the disk and in memory. While the hub is there a device waits for room; while
    it is away the oldest activations make way, and are counted. Weights and reports never do."""

    known_bytes: Annotated[int, Range(0, 1 << 40)] = 4194304
    """Most bytes of activations that a device remembers, on the disk and in memory, where the hub does not want samples again
    that have hardly changed; two a value. The oldest make way, and are sent again. 0 sends all."""

    recorder_bytes: Annotated[int, Range(0, 1 << 30)] = 4194304
    """Most bytes of the flight recorder, state/recorder: what this device saw and did last, for cutlayer-hub trial replay.
    0 records nothing."""

    checkpoint_steps: Annotated[int, Range(1, 100000)] = 8
    """Steps between two states on disk. A power cut repeats at most so many; more of them spare an SD card."""

    sample_seconds: Annotated[float, Range(0.01, 60)] = 0.1
    """Time between two readings of a power sensor. Counters of energy are read more rarely."""

    once: bool = False
    """Whether the device ends when the hub says goodbye, instead of waiting for the next run."""

    def problems(self) -> Iterator[str]:
        """Yields what does not go together."""
        if self.window_bytes < self.chunk_bytes:
            yield f"window_bytes = {self.window_bytes} is less than one chunk of chunk_bytes = {self.chunk_bytes}"


@dataclass(frozen=True)
class UpdateConfig:
    """Updates over the air, on a board installed from a signed release: the installer writes this. Without it offers are refused."""

    current: Annotated[Path | None, Example("/opt/cutlayer/current")] = None
    """Folder of the release that runs, with its manifest.json; a symlink that the installer switches."""

    incoming: Annotated[Path | None, Example("/var/lib/cutlayer/incoming")] = None
    """Folder in which the installer looks for new releases."""

    keys: Annotated[Path | None, Example("/etc/cutlayer/release-keys")] = None
    """File of the public keys that releases must be signed with, 64 hexadecimal digits a line."""

    keep: Annotated[float, Range(0, 1)] = 0.5
    """Share of each limit of [budget] that updates leave for training: no piece is asked for beyond the rest."""

    @property
    def installed(self) -> bool:
        """Whether this board can be updated."""
        return None not in (self.current, self.incoming, self.keys)

    def problems(self) -> Iterator[str]:
        """Yields what does not go together."""
        given = [name for name in ("current", "incoming", "keys") if getattr(self, name) is not None]
        if len(given) in (1, 2):
            yield f"current, incoming and keys belong together, only {' and '.join(given)} is given"


@dataclass(frozen=True)
class ServiceConfig:
    """For a device that a process manager keeps running. systemd is told more over $NOTIFY_SOCKET, which it sets itself."""

    healthy: Annotated[Path | None, Example("/var/lib/cutlayer/healthy")] = None
    """File that names the release that runs once it has proven itself: once a step is done for the hub, or healthy_seconds have passed."""

    healthy_seconds: Annotated[float, Range(0, 86400)] = 30.0
    """How long the device must have run to count as well without a step for the hub, or a network."""


@dataclass(frozen=True)
class DeviceConfig:
    """All sections of a device's configuration."""

    device: IdentityConfig
    broker: BrokerConfig
    bundle: BundleConfig
    data: DataConfig
    run: RunConfig
    budget: BudgetConfig = field(default_factory=BudgetConfig)
    energy: EnergyConfig = field(default_factory=EnergyConfig)
    update: UpdateConfig = field(default_factory=UpdateConfig)
    service: ServiceConfig = field(default_factory=ServiceConfig)
    enrolment: EnrolmentConfig = field(default_factory=EnrolmentConfig)

    def problems(self) -> Iterator[str]:
        """Yields what does not go together between sections."""
        if self.enrolment.url is None:
            yield from (f"[broker] {sentence}" for sentence in self.broker.missing())
        elif not self.broker.tls:
            yield f'[enrolment] is for TLS, but url = "{self.broker.url}" of [broker] is plain: write mqtts://'
        else:
            for name in ("ca", "certificate", "key"):
                if getattr(self.broker, name) is None:
                    yield f"[enrolment] needs {name} in [broker]: the file to keep it in"


def load(path: Path, environ: Mapping[str, str]) -> DeviceConfig:
    """Reads a device's configuration; variables `CUTLAYER_SECTION_KEY` of `environ` come before the file.

    Raises:
        ConfigError: naming every problem of the file, one a line.
    """
    text = read_text(path)
    return toml_fields.read(DeviceConfig, text, str(path), folder=path.parent, environ=environ, prefix=PREFIX)


def read_text(path: Path) -> str:
    """Reads a configuration file, or says in one sentence why that cannot be done."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8: byte {error.start} is 0x{error.object[error.start]:02x}") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from None


def describe() -> str:
    """Returns an annotated example of the file, made from the dataclasses above."""
    return toml_fields.describe(DeviceConfig, HEADING)
