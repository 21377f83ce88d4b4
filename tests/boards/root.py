"""A Debian for arm64 that is only unpacked, and its kernel: what the boards of these tests are made of.

Packages come from where apt of this machine gets its own; nothing of them is run while the tree is made. All of it is kept in the
folder of `cache()`, so that the second time takes no time.
"""

import fcntl
import gzip
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.boards import cpio
from tests.hub.trial.vm import in_order

SUITE = "bookworm"
PYTHON = "3.11"
"""Of that suite."""

EMULATOR = "qemu-aarch64-static"

PACKAGES = (
    "base-files", "base-passwd", "bash", "busybox-static", "ca-certificates", "coreutils", "dash", "findutils", "grep", "iproute2", "libc-bin",
    "libstdc++6", "login", "mount", "passwd", "procps", "python3", "sed", "systemd", "systemd-sysv", "util-linux",
)  # fmt: skip
CLOUD_INIT = (*PACKAGES, "cloud-init", "hostname")
"""Of a board that is set up by the seed on its card."""
MODULES = (
    "crc32c_generic", "virtio_pci", "virtio_blk", "virtio_net", "virtio_console", "ext4", "autofs4", "vfat", "nls_cp437", "nls_ascii",
)  # fmt: skip
UNREAD = (
    "usr/share/doc",
    "usr/share/perl",
    "usr/lib/aarch64-linux-gnu/perl-base",
    "usr/share/zoneinfo",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "var/cache/apt",
    "var/lib/apt",
    "usr/lib/udev/hwdb.d",
)
"""Left out of the tree."""

# What a board says to whom asks it, so that the client is not told of this machine's processors (onnxruntime dies of that).
BOARD_FILES = {
    "proc/device-tree/model": "Raspberry Pi 4 Model B Rev 1.4\0",
    "proc/device-tree/compatible": "raspberrypi,4-model-b\0brcm,bcm2711\0",
    "proc/cpuinfo": "".join(
        f"processor\t: {core}\nBogoMIPS\t: 108.00\nFeatures\t: fp asimd evtstrm crc32 cpuid\nCPU implementer\t: 0x41\n"
        f"CPU architecture: 8\nCPU variant\t: 0x0\nCPU part\t: 0xd08\nCPU revision\t: 3\n\n"
        for core in range(4)
    )
    + "Revision\t: c03114\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n",
    "proc/meminfo": "MemTotal:        3884360 kB\nMemFree:         2805432 kB\nMemAvailable:    3291080 kB\nBuffers:           41132 kB\n"
    "Cached:           612340 kB\nSwapTotal:        102396 kB\nSwapFree:         102396 kB\n",
    "sys/devices/system/cpu/online": "0-3\n",
    "sys/devices/system/cpu/possible": "0-3\n",
    "sys/devices/system/cpu/present": "0-3\n",
    "sys/devices/system/cpu/cpufreq/policy0/affected_cpus": "0 1 2 3\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_governor": "ondemand\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_driver": "cpufreq-dt\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_min_freq": "600000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_max_freq": "1500000\n",
    "sys/devices/system/cpu/cpufreq/policy0/cpuinfo_max_freq": "1500000\n",
    "sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq": "1500000\n",
    **{
        f"sys/devices/system/cpu/cpu{core}/topology/{name}": f"{value}\n"
        for core in range(4)
        for name, value in (
            ("core_id", core),
            ("core_siblings", "f"),
            ("core_siblings_list", "0-3"),
            ("package_cpus", "f"),
            ("physical_package_id", 0),
            ("thread_siblings", f"{1 << core:x}"),
            ("thread_siblings_list", core),
        )
    },
}

_INIT = """#!/bin/busybox sh
/bin/busybox mkdir -p /proc /new
/bin/busybox mount -t devtmpfs dev /dev
for module in {modules}; do /bin/busybox insmod /modules/$module || echo "insmod $module failed"; done
tries=0
while [ ! -b /dev/vda ] && [ $tries -lt 100 ]; do /bin/busybox sleep 0.1; tries=$((tries + 1)); done
/bin/busybox ip link set lo up
/bin/busybox ip link set eth0 up
/bin/busybox ip address add 10.0.2.15/24 dev eth0
/bin/busybox ip route add default via 10.0.2.2
/bin/busybox mount -t ext4 /dev/vda /new
[ ! -b /dev/vdb1 ] || /bin/busybox mount -t vfat -o umask=0077 /dev/vdb1 /new/boot/firmware
/bin/busybox mount -o move /dev /new/dev
exec /bin/busybox switch_root /new /lib/systemd/systemd
"""


class PackagesError(RuntimeError):
    """apt could not bring what the board is made of."""


@dataclass(frozen=True)
class Parts:
    """What a board boots from."""

    tree: Path
    kernel: Path
    initramfs: Path


def cache() -> Path:
    """Where all that takes long is kept."""
    return Path(os.environ.get("CUTLAYER_BOARDS") or Path(__file__).parents[2] / "build/boards").absolute()


def parts(packages: tuple[str, ...] = PACKAGES) -> Parts:
    """The tree and the kernel, made now if they are not there.

    Args:
        packages: of Debian, besides those that they need.

    Raises:
        PackagesError: apt has no such packages, or cannot get them.
    """
    recipe = repr((SUITE, packages, MODULES, UNREAD, _INIT))
    folder = kept(f"debian-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}", lambda into: _make(into, packages))
    return Parts(folder / "tree", folder / "vmlinuz", folder / "initramfs")


def kept(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache; `make` fills it where it is not there yet. What is half made is thrown away."""
    folder = cache() / name
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two tests that want it at once: the second waits
        if not folder.exists():
            half = Path(tempfile.mkdtemp(prefix=f"{name}.", dir=cache()))
            try:
                make(half)
                half.chmod(0o755)
                half.rename(folder)
            finally:
                shutil.rmtree(half, ignore_errors=True)
    return folder


def copy(tree: Path, to: Path) -> Path:
    """A tree of its own, which a test may change."""
    subprocess.run(["cp", "-a", "--reflink=auto", tree, to], check=True)
    return to


def dress(tree: Path) -> None:
    """Put the files of a Raspberry Pi's kernel into a tree, for programs that run in it without a kernel of its own."""
    for name, text in BOARD_FILES.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def compile_python(tree: Path, *folders: str) -> None:
    """Write the bytecode of folders of the tree, as Debian's packages do when they are configured: without it an emulated start takes a minute.

    The bytecode is Python 3.11's, whose every machine has the same: with another one here, the tree's own does it, slowly.
    """
    here = sys.version_info[:2] == tuple(int(part) for part in PYTHON.split("."))
    python = [sys.executable] if here else [f"{EMULATOR}", "-L", str(tree), str(tree / f"usr/bin/python{PYTHON}")]
    script = "import compileall, sys; [compileall.compile_dir(sys.argv[1] + '/' + name, stripdir=sys.argv[1], quiet=2, workers=1) for name in sys.argv[2:]]"
    subprocess.run([*python, "-I", "-c", script, str(tree), *folders], check=True, stdin=subprocess.DEVNULL)


def _make(folder: Path, packages: tuple[str, ...]) -> None:
    tree, unpacked = folder / "tree", folder / "kernel"
    unpacked.mkdir(mode=0o777)
    # The hook downloads the newest kernel with the lists that apt has just read for that architecture.
    hook = (
        f"cd {unpacked} && export APT_CONFIG=$MMDEBSTRAP_APT_CONFIG && apt-get download -q "
        "$(apt-cache depends linux-image-arm64 | sed -n 's/ *Depends: //p' | head -n 1)"
    )
    # fmt: off
    command = [
        "mmdebstrap", "--quiet", "--mode=root", "--variant=extract", "--architectures=arm64", f"--include={','.join(packages)}",
        '--aptopt=APT::Install-Recommends "false"', '--aptopt=APT::Sandbox::User "root"', "--hook-dir=/usr/share/mmdebstrap/hooks/merged-usr",
        f"--extract-hook={hook}", SUITE, str(tree), _mirror(),
    ]
    # fmt: on
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise PackagesError(f"mmdebstrap: {done.stderr.strip()[-2000:]}")
    for name in UNREAD:
        shutil.rmtree(tree / name, ignore_errors=True)
    _settle(tree)
    compile_python(tree, "usr/lib/python3.11", "usr/lib/python3")
    (package,) = unpacked.glob("*.deb")
    subprocess.run(["dpkg-deb", "-x", package, unpacked], check=True)
    (image,) = (unpacked / "boot").glob("vmlinuz-*")
    shutil.copy(image, folder / "vmlinuz")
    found = in_order(
        {path.stem.replace("-", "_"): path for path in unpacked.glob("lib/modules/*/kernel/**/*.ko")}, MODULES
    )
    files = {f"modules/{path.name}": (0o644, path.read_bytes()) for path in found}
    files["bin/busybox"] = (0o755, (tree / "usr/bin/busybox").read_bytes())
    files["init"] = (0o755, _INIT.format(modules=" ".join(path.name for path in found)).encode())
    (folder / "initramfs").write_bytes(gzip.compress(cpio.pack(files), 1, mtime=0))
    shutil.rmtree(unpacked)


def _mirror() -> str:
    """Where apt of this machine gets Debian from."""
    asked = [
        "apt-get",
        "indextargets",
        "--format",
        "$(ORIGIN) $(COMPONENT) $(CODENAME) $(REPO_URI)",
        "Created-By: Packages",
    ]
    done = subprocess.run(asked, capture_output=True, text=True, check=False)
    for line in done.stdout.splitlines():
        origin, component, codename, uri = line.split()
        if (origin, component) == ("Debian", "main") and "-" not in codename:
            return uri
    raise PackagesError("apt of this machine knows no mirror of Debian (is apt-get update to be run?)")


def _settle(tree: Path) -> None:
    """What the packages' own scripts would have done, as far as these tests need it."""
    for name in ("passwd", "group"):
        shutil.copy(tree / f"usr/share/base-passwd/{name}.master", tree / f"etc/{name}")
    shadow = "".join(
        f"{line.split(':')[0]}:*:19000:0:99999:7:::\n" for line in (tree / "etc/passwd").read_text().splitlines()
    )
    (tree / "etc/shadow").write_text(shadow)
    (tree / "etc/shadow").chmod(0o640)
    (tree / "etc/hostname").write_text("board\n")
    (tree / "etc/hosts").write_text("127.0.0.1 localhost\n127.0.1.1 board\n10.0.2.2 hub.local\n")
    (tree / "etc/machine-id").write_text("")
    (tree / "etc/fstab").write_text("")
    (tree / "boot/firmware").mkdir(exist_ok=True)
