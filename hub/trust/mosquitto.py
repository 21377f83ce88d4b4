"""The broker for boards elsewhere: mosquitto, which lets in who has a certificate of the fleet, as whom that names, and no further.

Found with mosquitto 2.0.11: SIGHUP makes it read the list of revoked certificates and its own certificate again; connections
that are open stay. With `use_username_as_clientid` a second connection of one name ends the first, without a word why. What a
client may not read is granted at SUBSCRIBE and never delivered; what it may not write is taken and thrown away.
"""

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

from edge.wire import topics
from hub import broker
from hub.broker import MOSQUITTO_LIMITS, Broker, BrokerError
from hub.trust import files
from hub.trust.folder import HUB, Folder

WRITES = ("up", "status", "profile/up", "profile/mark", "update/want", "update/state")
READS = ("down", "profile/mark", "update/offer", "update/piece")
"""Topics of a device, below its own name."""
SERVICES = ("status", "rollout")
"""Programs on the hub's side that connect beside the hub; `status` only listens."""
LOG_BYTES = 16 << 20
"""Strangers who knock fill the log: beyond this it begins anew."""

_CONFIGURATION = """\
# Written by cutlayer-hub serve --tls; changes here are lost.
listener {port} {address}
allow_anonymous false
cafile {root}/ca.pem
certfile {root}/broker.pem
keyfile {root}/broker.key
# With a list that has run out nobody gets in: serve renews it long before.
crlfile {root}/crl.pem
require_certificate true
use_identity_as_username true
# One connection a certificate, and no client id that is another's name.
use_username_as_clientid true
acl_file {root}/broker/acl
"""


def configuration(root: Path, address: str, port: int) -> str:
    """mosquitto.conf of a fleet's folder."""
    text = _CONFIGURATION.format(root=root, address=address, port=port) + MOSQUITTO_LIMITS
    # As root it would change its user, and could read no key then; a hub should not run as root.
    return text + ("user root\n" if os.geteuid() == 0 else "")


def acl(fleet: str) -> str:
    """Who may do what. `%u` is the name in the client's certificate."""
    base = f"{topics.ROOT}/{topics.check_name(fleet, 'fleet')}"
    lines = [
        "# Written by cutlayer-hub serve --tls; changes here are lost.",
        f"user {HUB}",
        f"topic readwrite {base}/#",
    ]
    for service in SERVICES:
        only = f"topic read {base}/+/status" if service == "status" else f"topic readwrite {base}/#"
        lines += [f"user {HUB}:{service}", only]
    lines += [f"pattern write {base}/%u/{leaf}" for leaf in WRITES]
    lines += [f"pattern read {base}/%u/{leaf}" for leaf in READS]
    lines.append(f"pattern read {base}/{HUB}/status")
    return "\n".join(lines) + "\n"


def start(folder: Folder, address: str, port: int) -> Broker:
    """Start the broker of a fleet, and wait until it accepts connections.

    Raises:
        BrokerError: mosquitto is not installed, the port is in use, or it did not come up.
    """
    program = broker.find_mosquitto()
    if program is None:
        raise BrokerError("mosquitto is not installed: --tls needs it, install the package mosquitto")
    root = folder.root.resolve()
    if "\n" in str(root):
        raise BrokerError(f"mosquitto takes no path with a line's end: {root!r}")
    folder.broker.mkdir(mode=0o700, exist_ok=True)
    broker.refuse_taken(address, port)
    path = folder.broker / "mosquitto.conf"
    files.write(path, configuration(root, address, port).encode(), files.PRIVATE)
    files.write(folder.broker / "acl", acl(folder.fleet).encode(), files.PRIVATE)
    here = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(address, address)  # noqa: S104
    host = f"[{here}]" if ":" in here else here
    started = broker.launch(
        "mosquitto",
        [program, "-c", str(path.resolve())],
        f"mqtts://{host}:{port}",
        (here, port),
        folder.broker / "mosquitto.log",
    )
    files.write(folder.broker / "mosquitto.pid", f"{started.pid}\n".encode(), files.PUBLIC)
    return started


def running(folder: Folder, proc: Path = Path("/proc")) -> int | None:
    """The process number of this fleet's broker, or None. A number that another program has by now does not count."""
    try:
        pid = int((folder.broker / "mosquitto.pid").read_text("ascii"))
        command = (proc / str(pid) / "cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    ours = os.fsencode((folder.broker / "mosquitto.conf").resolve())
    return pid if b"mosquitto" in os.path.basename(command[0]) and ours in command else None  # noqa: PTH119  bytes


def reload(folder: Folder) -> bool:
    """Have the broker read certificates and the list of those revoked again; whether there is one."""
    pid = running(folder)
    if pid is None:
        return False
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGHUP)
        return True
    return False


def trim_log(folder: Folder) -> None:
    """Begin the log anew when it has grown too long."""
    path = folder.broker / "mosquitto.log"
    with suppress(FileNotFoundError):
        if path.stat().st_size > LOG_BYTES:
            os.truncate(path, 0)


def answers(url_host: str, port: int) -> bool:
    """Whether anybody listens there."""
    with suppress(OSError), socket.create_connection((url_host, port), timeout=1):
        return True
    return False
