"""What became of a release that came over the air: result.json beside it, for the agent to tell the hub.

 {"format":1, "release":"<id>", "outcome":"installed|refused|rolled back", "reason":"…", "again":false}

`again`: the board stood against it, such as a full disk, and it may be offered again.

The folder belongs to the service's unprivileged user, who may put links or anything else there: nothing is followed.
"""

import json

from edge.release import disk
from edge.release.layout import Layout

INSTALLED, REFUSED, ROLLED_BACK = "installed", "refused", "rolled back"

FILE = "result.json"


def write(layout: Layout, release: str, outcome: str, reason: str, *, again: bool = False) -> None:
    """Writes result.json as a whole; raises OSError where there is no folder for it."""
    plain = {"format": 1, "release": release, "outcome": outcome, "reason": reason, "again": again}
    with disk.folder_of(layout.state / "incoming", ours=layout.state) as folder:
        disk.write_within(folder, FILE, json.dumps(plain, sort_keys=True).encode() + b"\n")
