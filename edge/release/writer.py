"""Writes release files: the same contents give the same bytes."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import BinaryIO

from edge.release.archive import END, FILES, MANIFEST, SIGNATURE, header, padding
from edge.release.manifest import ReleaseError, ReleaseManifest
from edge.release.signatures import pack_signatures


def write_release(
    path: Path, manifest: ReleaseManifest, signatures: Mapping[bytes, bytes], contents: Mapping[str, Path | bytes]
) -> None:
    """Write a release, whole or not at all; other readers never see half of it.

    Args:
        path: of the file; an older one is replaced.
        manifest: of the release.
        signatures: over `signatures.signed_part(manifest.pack())`, by public key.
        contents: bytes, or the file that has them, by hash; those left out make it partial. They are not hashed here.

    Raises:
        ReleaseError: contents that the manifest does not name, or of another size than it says.
    """
    sizes = manifest.sizes
    if strange := sorted(set(contents) - set(sizes)):
        raise ReleaseError(f"{path}: the manifest names no contents {strange[0][:16]}…")
    part = path.with_name(path.name + ".part")
    try:
        with part.open("wb") as file:
            _member(file, MANIFEST, manifest.pack())
            _member(file, SIGNATURE, pack_signatures(signatures))
            for sha256 in sorted(contents):
                _member(file, FILES + sha256, contents[sha256], sizes[sha256])
            file.write(END)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _member(file: BinaryIO, name: str, data: Path | bytes, size: int | None = None) -> None:
    found = data.stat().st_size if isinstance(data, Path) else len(data)
    if size not in (None, found):
        raise ReleaseError(f"{data if isinstance(data, Path) else name}: {found} bytes; the manifest says {size}")
    file.write(header(name, found))
    if isinstance(data, Path):
        with data.open("rb") as source:
            shutil.copyfileobj(source, file)
    else:
        file.write(data)
    file.write(bytes(padding(found)))
