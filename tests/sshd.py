"""A real ssh server on the loopback, with keys and configuration of its own; ended by its process id."""

import getpass
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def server(folder, environment=None, user=None) -> Iterator[Path]:
    """Runs a server; yields a configuration for ssh in which it is the host `board`.

    `folder` gets the keys (host, user), the client's list of known hosts (known) and both configurations; `environment` is
    set in every session, whose user is the one who runs this unless another is named.
    """
    path = f"{os.environ.get('PATH', '')}:/usr/sbin"
    sshd, keygen = shutil.which("sshd", path=path), shutil.which("ssh-keygen")
    if sshd is None or keygen is None or shutil.which("ssh") is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("openssh-server is not installed")
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # the server wants it, and its package leaves it to the service
    for name in ("host", "user"):
        subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-f", folder / name], check=True, timeout=60)
    (folder / "keys").write_bytes((folder / "user.pub").read_bytes())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    given = " ".join(f'"{name}={value}"' for name, value in (environment or {}).items())
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nAuthorizedKeysFile {folder}/keys\nPidFile none\n"
        "StrictModes no\nUsePAM no\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin prohibit-password\n" + (f"SetEnv {given}\n" if given else "")
    )
    (folder / "ssh_config").write_text(
        f"Host board\nHostName 127.0.0.1\nPort {port}\nUser {user or getpass.getuser()}\nIdentityFile {folder}/user\n"
        f"IdentitiesOnly yes\nIdentityAgent none\nUserKnownHostsFile {folder}/known\nGlobalKnownHostsFile none\n"
        "StrictHostKeyChecking accept-new\nBatchMode yes\nRequestTTY force\n"
    )
    with subprocess.Popen(
        [sshd, "-D", "-e", "-f", folder / "sshd_config"], stderr=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL
    ) as running:
        try:
            said = []
            for line in running.stderr:
                said.append(line)
                if "listening" in line:
                    break
            else:
                pytest.fail(f"sshd did not start: {''.join(said)}")
            yield folder / "ssh_config"
        finally:
            running.send_signal(signal.SIGTERM)
            running.stderr.close()
