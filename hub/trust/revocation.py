"""A device out for good: its certificates on the list, the list with the broker, and the connection that is open cut.

mosquitto checks certificates when a connection begins, and has no way to end one. But it lets one connection in for a name,
so somebody with the fleet's authority connects as that name for a moment: what was open ends, and cannot come back.
"""

import logging
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path

from edge.link import LinkError
from edge.mqtt_link import MqttLink
from edge.wire import topics
from hub.trust import files, mosquitto
from hub.trust.authority import new_key, pem_of, private_pem
from hub.trust.errors import TrustError
from hub.trust.folder import Folder
from hub.trust.register import Revoked

log = logging.getLogger("cutlayer.hub")

CUTS = 2
"""A connection that began while the list was being read may come after the first."""
PAUSE_SECONDS = 0.5
LIFE = timedelta(minutes=5)


def revoke(folder: Folder, name: str, url: str, now: datetime) -> tuple[Revoked, str]:
    """Revoke what a name has.

    Args:
        folder: of the fleet.
        name: of the device.
        url: of the broker, from this machine.
        now: an aware time.

    Returns:
        How much that was, and what became of the open connection, in words.

    Raises:
        TrustError: there is no such name, or the broker cannot be told.
    """
    found = folder.register.revoke(name, now)
    try:
        return found, put_out(folder, name, url, now)
    except OSError as error:
        raise TrustError(
            f"{name} is revoked in the register, but the broker still lets it in: the list {folder.crl} cannot be written: "
            f"{error.strerror or error}; mend that and revoke it again"
        ) from error


def put_out(folder: Folder, name: str, url: str, now: datetime) -> str:
    """What the register says of a name becomes true at the broker; returns what was done, in words."""
    folder.write_revocations(now)
    if not mosquitto.reload(folder):
        return "no broker of this fleet runs: the list is read when it starts"
    try:
        cut(folder, name, url, now)
    except LinkError as error:
        return f"the broker has the list, but an open connection could not be cut: {error}"
    return "the broker has the list, and no connection is left"


def cut(folder: Folder, name: str, url: str, now: datetime) -> None:
    """End the connection of a name, if there is one, and leave its status as offline.

    Raises:
        LinkError: the broker does not let us in.
    """
    key = new_key()
    signed = folder.authority.sign(name, key.public_key(), "client", LIFE, now)
    offline = topics.pack_status(online=False, instance=0)
    with tempfile.TemporaryDirectory(prefix=".cut-", dir=folder.root) as place:
        pem, private = Path(place) / "pem", Path(place) / "key"
        files.write(pem, pem_of(signed), files.PRIVATE)
        files.write(private, private_pem(key), files.PRIVATE)
        for number in range(CUTS):
            time.sleep(PAUSE_SECONDS if number else 0)
            link = MqttLink(
                url, name, will=(topics.status(folder.fleet, name), offline), ca=folder.ca, certificate=pem, key=private
            )
            try:
                link.open(10.0)
            finally:
                link.close()
