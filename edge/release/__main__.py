"""Commands around release files on a board; they need a python3 and nothing else."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from edge.release import commands
from edge.release.archive import open_release
from edge.release.manifest import ReleaseError, format_date
from edge.release.signatures import read_keys

MISTAKE = 2
"""Exit code for what the user can mend, as `cutlayer` has it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return the exit code: 0, or 2 for a release, a key or a path that will not do."""
    # Whoever calls us may keep others out of new files; the service's user has to read what is installed.
    os.umask(0o022)
    arguments = _parser().parse_args(argv)
    try:
        return int(arguments.run(arguments))
    except ReleaseError as error:
        print(f"{_program()}: {error}", file=sys.stderr)
    except OSError as error:
        print(f"{_program()}: {error.filename or 'a file'}: {error.strerror}", file=sys.stderr)
    return MISTAKE


def _check(arguments: argparse.Namespace) -> int:
    with open_release(arguments.file, read_keys(arguments.keys), now=datetime.now(UTC)) as release:
        release.check()
        manifest, missing = release.manifest, release.missing
    print(f"release {release.id}")
    print(
        f"version {manifest.version} of fleet {manifest.fleet}, issued {format_date(manifest.issued)}, "
        f"expires {format_date(manifest.expires)}"
    )
    print(f"for {manifest.board}, {manifest.architecture}, Python {manifest.python}; cutlayer {manifest.cutlayer}")
    print(f"bundle {manifest.bundle}")
    shown = ", ".join(missing[:3]) + (" …" if len(missing) > 3 else "")
    kept = f"; partial, without {len(missing)} of them: {shown}" if missing else ""
    print(f"{len(manifest.files)} files, {manifest.total_bytes} bytes{kept}")
    return 0


def _check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", type=Path, metavar="FILE", help="release file")
    parser.add_argument("--keys", type=Path, required=True, metavar="FILE", help="trusted public keys, one of 64 hexadecimal digits a line")  # fmt: skip


COMMANDS: dict[str, tuple[str, Callable[[argparse.Namespace], int], Callable[[argparse.ArgumentParser], None]]] = {
    "check": ("verify a release file and say what it is", _check, _check_options),
    **commands.COMMANDS,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=_program(), description=__doc__)
    table = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, (text, run, options) in COMMANDS.items():
        command = table.add_parser(name, help=text, description=text)
        options(command)
        command.set_defaults(run=run)
    return parser


def _program() -> str:
    return "installer.pyz" if sys.argv[0].endswith(".pyz") else "python -m edge.release"


if __name__ == "__main__":
    sys.exit(main())
