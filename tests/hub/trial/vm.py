"""A machine with another kernel that sees our files: for kernels that have what this one has not.

It needs qemu-system-x86_64 and busybox, installed, and a kernel package of Debian (linux-image-*-amd64), only unpacked:

    dpkg-deb -x linux-image-6.1.0-56-amd64_6.1.192-2_amd64.deb KERNEL
    python -m tests.hub.trial.vm KERNEL

The machine is emulated in software; its root is ours, read-only (9p), with an empty /run to write to.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

MODULES = ("virtio_pci", "9pnet_virtio", "9p", "veth", "tun", "sch_tbf", "sch_netem")
BOOT_SECONDS = 420.0

_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /host
for module in {modules}; do /bin/busybox insmod /modules/$module || echo "insmod $module failed"; done
/bin/busybox mount -t 9p -o trans=virtio,version=9p2000.L,msize=262144,cache=loose,ro host /host
/bin/busybox mount -t proc proc /host/proc
/bin/busybox mount -t sysfs sysfs /host/sys
/bin/busybox mount -t tmpfs tmpfs /host/run
/bin/busybox mount -t tmpfs tmpfs /host/dev
/bin/busybox mknod /host/dev/null c 1 3
/bin/busybox mknod /host/dev/urandom c 1 9
/bin/busybox mkdir /host/dev/net
/bin/busybox mknod /host/dev/net/tun c 10 200
exec /bin/busybox switch_root /host /bin/sh -c '{command}; echo "ended with code $?"; echo o > /proc/sysrq-trigger; while :; do :; done'
"""


def boot(kernel: Path, command: str, seconds: float = BOOT_SECONDS) -> str:
    """Run a shell's command under a kernel; returns what the console showed. It is ended after so many seconds."""
    with tempfile.TemporaryDirectory() as folder:
        initramfs = _initramfs(kernel, command, Path(folder))
        (image,) = (kernel / "boot").glob("vmlinuz-*")
        # fmt: off
        machine = [
            "qemu-system-x86_64", "-accel", "tcg", "-cpu", "max", "-smp", "2", "-m", "1024", "-nographic", "-no-reboot",
            "-nic", "none", "-kernel", str(image), "-initrd", str(initramfs),
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off",
            "-virtfs", "local,path=/,mount_tag=host,security_model=none,readonly=on,multidevs=remap",
        ]
        # fmt: on
        try:
            done = subprocess.run(machine, stdin=subprocess.DEVNULL, capture_output=True, timeout=seconds, check=False)
        except subprocess.TimeoutExpired as error:
            return (error.stdout or b"").decode(errors="replace") + f"\nnot over after {seconds:g} s\n"
        return (done.stdout + done.stderr).decode(errors="replace")


def _initramfs(kernel: Path, command: str, folder: Path) -> Path:
    root = folder / "root"
    (root / "bin").mkdir(parents=True)
    (root / "modules").mkdir()
    (root / "dev").mkdir()
    shutil.copy(shutil.which("busybox") or "busybox", root / "bin/busybox")
    order = in_order({_name(path): path for path in kernel.glob("lib/modules/*/kernel/**/*.ko")}, MODULES)
    for path in order:
        shutil.copy(path, root / "modules")
    init = root / "init"
    init.write_text(_INIT.format(modules=" ".join(path.name for path in order), command=command))
    init.chmod(0o755)
    names = "\n".join(str(path.relative_to(root)) for path in (root, *sorted(root.rglob("*"))))
    packed = subprocess.run(
        ["busybox", "cpio", "-o", "-H", "newc"], input=names.encode(), cwd=root, capture_output=True, check=True
    )
    (folder / "initramfs").write_bytes(packed.stdout)
    return folder / "initramfs"


def in_order(modules: dict[str, Path], wanted: Sequence[str]) -> list[Path]:
    """The modules that are wanted and those they need, the latter first; each names them in its own file."""
    found: list[Path] = []

    def add(name: str) -> None:
        path = modules.get(name)
        if path is None or path in found:
            return  # what is no module is part of this kernel
        listed = re.search(rb"\0depends=([^\0]*)", path.read_bytes())
        for needed in (listed[1].decode() if listed else "").split(","):
            add(needed.replace("-", "_"))
        found.append(path)

    for name in wanted:
        add(name)
    return found


def _name(path: Path) -> str:
    return path.stem.replace("-", "_")


def measure(kernel: Path) -> str:
    """What tests.hub.trial.netem_guest prints under that kernel."""
    here = Path(__file__).parents[3]
    return boot(
        kernel, f"cd {here} && PYTHONPATH={here} PATH=$PATH:/usr/sbin:/sbin TMPDIR=/run PYTHONDONTWRITEBYTECODE=1 "
        f"{sys.executable} -m tests.hub.trial.netem_guest"
    )  # fmt: skip


if __name__ == "__main__":
    print(measure(Path(os.fspath(sys.argv[1]))))
