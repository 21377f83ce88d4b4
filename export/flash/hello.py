"""Whether a device says hello on the fleet's broker: its retained status, which its last will takes back.

It listens with the fleet folder's certificate for that (`hub-status`), which may read statuses and nothing else; the hub's own
would throw the hub off.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from edge.link import Link, LinkError, Message
from edge.mqtt_link import MqttLink
from edge.wire import topics
from edge.wire.frames import WireError
from export.flash.errors import FlashError

CA, CERTIFICATE, KEY = "ca.pem", "hub-status.pem", "hub-status.key"
RETAINED_SECONDS = 2.0
"""How long a status of before may take to come."""


@dataclass
class Hello:
    """What the broker says of one device."""

    link: Link
    topic: str
    clock: Callable[[], float] = time.monotonic
    online: bool = field(default=False, init=False)
    instance: int | None = field(default=None, init=False)
    """Number of the process that is online, or was last."""

    def wait(self, seconds: float, *, other_than: int | None = None) -> bool:
        """Wait until the device is online; returns whether it is.

        Args:
            seconds: at most.
            other_than: a process of before, which does not count.
        """
        until = self.clock() + seconds
        while True:
            if self.online and self.instance != other_than:
                return True
            left = until - self.clock()
            if left <= 0:
                return False
            for event in self.link.poll(min(left, 1.0)):
                if isinstance(event, Message) and event.topic == self.topic:
                    self._take(event.payload)

    def _take(self, payload: bytes) -> None:
        try:
            self.online, self.instance = topics.read_status(payload)
        except WireError:
            self.online = False  # a status that was taken away, or nonsense, which is not a hello


@contextmanager
def listen(url: str, fleet: str, device: str, folder: Path | None) -> Iterator[Hello]:
    """Listen for a device's status; the one of before has come, if there is one.

    Args:
        url: of the broker.
        fleet: first level of the topics.
        device: its name.
        folder: the fleet's; None for a broker that asks for no certificate.

    Raises:
        FlashError: the broker cannot be reached, or the folder has no certificate for this.
    """
    names = () if folder is None else tuple(folder / name for name in (CA, CERTIFICATE, KEY))
    missing = [path.name for path in names if not path.is_file()]
    if missing:
        raise FlashError(
            f"{folder} has no {' and no '.join(missing)} to ask the broker with: `cutlayer-hub status` makes them"
        )
    ca, certificate, key = names or (None, None, None)
    topic = topics.status(fleet, device)
    try:
        link = MqttLink(
            url, f"flash-{secrets.token_hex(4)}", subscriptions=(topic,), ca=ca, certificate=certificate, key=key
        )
        link.open()
    except LinkError as error:
        raise FlashError(f"{error}; without --fleet-folder and --broker only the board is asked") from error
    try:
        hello = Hello(link, topic)
        hello.wait(RETAINED_SECONDS)
        yield hello
    finally:
        link.close()
