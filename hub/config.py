"""What a hub is told: one TOML file, which the environment may override (`CUTLAYER_HUB_RUN_ROUNDS=5`)."""

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Any, Literal

from edge.wire import toml_fields
from edge.wire.budget import BudgetConfig
from edge.wire.toml_fields import ConfigError, Example, Pattern, Range
from hub.strategies import STRATEGIES

PREFIX = "CUTLAYER_HUB"
HEADING = """Configuration of a cutlayer hub.
Relative paths start at the folder of this file. Any key can be overridden by the
environment: CUTLAYER_HUB_RUN_ROUNDS stands for rounds of [run]."""

CODEC = Pattern(
    r"float32|float16|(quantised|entropy):\d*\.?\d+|uniform:\d+|(topk|randtopk):\d*\.?\d+",
    "float32, float16, entropy:K or quantised:K (a step of K standard deviations), uniform:BITS, topk:SHARE or randtopk:SHARE",
)


@dataclass(frozen=True)
class BrokerConfig:
    """The MQTT broker that devices and hub meet at."""

    url: Annotated[
        str,
        Pattern(r"embedded|mosquitto|mqtts?://\S+", "embedded, mosquitto or a URL like mqtt://host:1883"),
    ] = "embedded"
    """embedded and mosquitto start a broker of our own on this machine's loopback; a URL uses one that is there."""

    port: Annotated[int, Range(0, 65535)] = 0
    """Port of a broker of our own; 0 takes a free one."""

    username: str | None = None
    """The name to log in with, where the broker asks for one."""

    password_file: Path | None = None
    """A file whose first line is the password."""

    ca: Path | None = None
    """PEM file of the authority that signed the broker's certificate."""

    certificate: Path | None = None
    """PEM file of the hub's own certificate, for brokers that want one."""

    key: Path | None = None
    """PEM file of the key that belongs to the certificate."""

    chunk_bytes: Annotated[int, Range(1024, 262144)] = 16384
    """Largest piece of a message to a device. Small pieces let urgent ones through on slow links."""


@dataclass(frozen=True)
class TlsConfig:
    """The fleet's own authority and broker, for boards elsewhere: with cutlayer-hub serve --tls, which needs mosquitto."""

    folder: Path = Path("fleet")
    """Folder of the fleet's keys, claims and certificates; hub/trust/README.md says what to back up."""

    names: tuple[str, ...] = ()
    """Host names and addresses by which boards reach this machine; the first goes into claims. Without any, this machine's name, and
    that with .local before it."""

    address: Annotated[str, Pattern(r"[0-9A-Fa-f:.]+", "an IP address")] = "0.0.0.0"  # noqa: S104  for boards elsewhere
    """Where broker and enrolment listen; 0.0.0.0 is every address of this machine."""

    port: Annotated[int, Range(1, 65535)] = 8883
    """Of the broker."""

    enrol_port: Annotated[int, Range(1, 65535)] = 8443
    """Where boards enrol and renew their certificates."""

    certificate_days: Annotated[int, Range(1, 825)] = 90
    """How long a device's certificate lasts; boards renew it when a third is left. One that is off for longer wants a new claim."""

    def problems(self) -> Iterator[str]:
        """Yields what does not go together."""
        if self.port == self.enrol_port:
            yield f"port and enrol_port are both {self.port}: the broker and the enrolment need one each"
        try:
            ip_address(self.address)
        except ValueError:
            yield f'address = "{self.address}" is no IP address'
        for name in self.names:
            if not re.fullmatch(r"[A-Za-z0-9._:-]{1,253}", name):
                yield f'names: "{name}" is no host name or address'


@dataclass(frozen=True)
class FleetConfig:
    """Which devices take part."""

    name: Annotated[str, Pattern(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", "a name")] = "fleet"
    """First level of the topics; devices and hub must name the same."""

    devices: Annotated[int, Range(1, 4096)] = 10
    """How many devices to wait for."""

    minimum_devices: Annotated[int, Range(1, 4096)] = 1
    """With fewer, the run waits."""

    gather_seconds: Annotated[float, Range(0, 1e6)] = 60.0
    """Longest wait for the devices at the start; then the run begins with those who came, if they are enough."""


@dataclass(frozen=True)
class BundleConfig:
    """What is trained: made by cutlayer-export build."""

    path: Annotated[Path, Example("hub.bundle")]
    """The hub's half; the devices have the other."""


@dataclass(frozen=True)
class RunConfig:
    """How the run goes."""

    folder: Annotated[Path, Example("runs/first")]
    """Where metrics, checkpoint and report are kept."""

    strategy: str = "adasplit"
    """Who sends what and when; the options of the strategy stand in [strategy]."""

    rounds: Annotated[int, Range(1, 1_000_000)] = 20
    """A round is one local epoch of the device with the most batches."""

    batch: Annotated[int, Range(1, 65536)] = 32
    """Samples a batch."""

    seed: Annotated[int, Range(0, 2**31 - 1)] = 0
    """What chance starts from: selection, masks, order of batches."""

    threads: Annotated[int, Range(1, 256)] = 1
    """Threads of the upper segment."""

    codec: Annotated[str, CODEC] = "float32"
    """How smashed data and gradients travel in training."""

    evaluate_every: Annotated[int, Range(0, 1_000_000)] = 1
    """Rounds between evaluations, from the first round on in which the hub learns; 0: after the last round only."""

    evaluation_codec: Annotated[str, CODEC] = "float32"
    """How smashed data travel in evaluation; those bytes are counted apart."""

    weights_codec: Annotated[str, CODEC] = "float32"
    """How weights travel, both ways; all but float32 code the difference to what the other side holds already, and send later what coding left out. Evaluations bring weights as they are, unless a budget pays for them."""

    order: Literal["free", "fixed"] = "free"
    """free: who is late or away is left out. fixed: every turn waits for the whole fleet, however long it takes, and a run that was interrupted ends with the weights of one that was not; a device whose outbox is full waits for room. Budgets of joules or CPU seconds, which are never the same twice, are refused then."""

    rounds_per_order: Annotated[int | None, Range(1, 100_000)] = None
    """Rounds at the start, in which a strategy has nobody send anything, that one order covers: the training is the same to the last bit, with fewer orders and reports, and its progress is told when the order is done. Unset: 8 with a [budget] of bytes, else 1."""

    turn_seconds: Annotated[float, Range(0.1, 1e6)] = 60.0
    """Deadline of one turn of orders; who is late is left out of it."""

    grace_seconds: Annotated[float, Range(0, 1e6)] = 10.0
    """How long a turn waits for a device that has gone offline."""

    profile: bool = False
    """Whether each device is asked once, before the first round, what a step costs on its board; the answers are kept in profiles/ of the
    folder. As cutlayer-hub profile fleet does between two runs."""

    profile_seconds: Annotated[float, Range(1, 86400)] = 1800.0
    """Longest wait for these; the run begins without those that are missing, and its report says why they are."""

    profile_at_once: Annotated[int, Range(1, 4096)] = 32
    """How many devices measure at a time; the others wait for their turn, so that hub and broker are not flooded with answers."""

    device: Literal["cpu"] = "cpu"
    """Where the upper segment computes."""


@dataclass(frozen=True)
class C3Config:
    """The budgets of the C3-Score; without them the maxima of the table are used."""

    megabytes: Annotated[float | None, Range(1e-9, 1e12), Example(100.0)] = None
    """Megabytes (10^6) a device may send in the run."""

    gflops: Annotated[float | None, Range(1e-9, 1e15), Example(100.0)] = None
    """Billions of multiply-adds a device may spend in the run."""


@dataclass(frozen=True)
class KnownConfig:
    """Samples that devices do not send again while the hub has them: in orders that wait for no gradient, from data that stays."""

    skip_below: Annotated[float, Range(0, 10)] = 0.0
    """A sample stays unsent while its activation has changed by less than this share of its norm since it was sent; 0 sends all."""

    refresh_rounds: Annotated[int, Range(1, 1_000_000)] = 16
    """After so many rounds it is sent again, however little it has changed."""

    megabytes: Annotated[float, Range(0, 1e6)] = 256.0
    """Disk (10^6 bytes) for what devices have sent, as float32, and what one round brings on top; the oldest samples make way, and are
    sent again. In memory are some 50 MB of it, and an index."""


@dataclass(frozen=True)
class HubConfig:
    """All sections of a hub's configuration."""

    broker: BrokerConfig
    tls: TlsConfig
    fleet: FleetConfig
    bundle: BundleConfig
    run: RunConfig
    budget: BudgetConfig
    """For every device that has no budget of its own."""
    c3: C3Config
    known: KnownConfig
    strategy: Any
    """Options of the strategy, a frozen dataclass of its own."""


def load(path: Path, environ: Mapping[str, str]) -> HubConfig:
    """Read a hub's configuration.

    Raises:
        ConfigError: naming every problem of the file, one a line; an unknown strategy lists the known ones.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no {path}: cutlayer-hub example > {path} makes one to start from, or name yours with --config"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    read: Any = toml_fields.read(
        schema(_strategy_name(text, str(path), environ)),
        text,
        str(path),
        folder=path.parent,
        environ=environ,
        prefix=PREFIX,
    )
    return HubConfig(**{field.name: getattr(read, field.name) for field in dataclasses.fields(HubConfig)})


def make_strategy(name: str, options: Mapping[str, Any]) -> Any:
    """The strategy of that name with these options.

    Raises:
        ConfigError: there is none, or it has no such option, or a value is out of its range.
    """
    kind = _kind(name)
    known = [field.name for field in dataclasses.fields(kind.options)]
    if unknown := [option for option in options if option not in known]:
        raise ConfigError(f"strategy {name} has no option {', '.join(unknown)}; it has {', '.join(known)}")
    try:
        return kind(kind.options(**options))
    except (TypeError, ValueError) as error:
        raise ConfigError(f"strategy {name}: {error}") from error


def schema(strategy: str) -> type:
    """The sections of a configuration for this strategy."""
    kind = _kind(strategy)
    sections: list[tuple[str, Any]] = [
        ("broker", BrokerConfig),
        ("tls", TlsConfig),
        ("fleet", FleetConfig),
        ("bundle", BundleConfig),
        ("run", RunConfig),
        ("budget", BudgetConfig),
        ("c3", C3Config),
        ("known", KnownConfig),
        ("strategy", kind.options),
    ]
    return dataclasses.make_dataclass("Sections", sections, frozen=True)


def _kind(strategy: str) -> Any:
    if strategy not in STRATEGIES:
        raise ConfigError(f"there is no strategy {strategy!r}; known are {', '.join(sorted(STRATEGIES))}")
    return STRATEGIES[strategy]


def describe(strategy: str = "adasplit") -> str:
    """An annotated example of the file for a strategy, made from the dataclasses."""
    return toml_fields.describe(schema(strategy), HEADING)


def _strategy_name(text: str, name: str, environ: Mapping[str, str]) -> str:
    try:
        given = tomllib.loads(text).get("run", {}).get("strategy", RunConfig.strategy)
    except (tomllib.TOMLDecodeError, AttributeError) as error:
        raise ConfigError(f"{name} is not valid TOML: {error}") from None
    return str(environ.get(f"{PREFIX}_RUN_STRATEGY", given))
