"""A folder of recorded pieces that grows while the board records, read with bounded memory."""

import json
import logging
import os
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from edge.recordings import Array, SensorError, Wanted, check_arrays, count_labels, read_npz
from edge.shuffle import Batch, Shuffled, order_of

log = logging.getLogger(__name__)

FOLDER_BYTES = 64 * 2**20  # what a Folder keeps in memory at most


@dataclass(frozen=True)
class _Piece:
    """One file of a folder that passed its checks; `stamp` tells whether it has changed since."""

    name: str
    samples: int
    test_samples: int
    bytes: int
    labels: dict[int, int]
    stamp: tuple[int, int]

    @property
    def line(self) -> list[Any]:
        """What the note says about it."""
        return [self.name, self.samples, self.test_samples]


class Folder(Shuffled):
    """A folder of .npz pieces that may grow while the board records. New pieces count from the next round on.

    Which pieces a round uses is noted in a small file, so that a restart in mid-round shuffles the same rows. A piece that
    fails its checks is left out and named in `refused`: a power cut while recording must not end the training. Write a piece under
    another name and rename it to .npz when it is whole. In memory are at most `limit_bytes` of pieces: pieces are
    shuffled, and rows within as many pieces as fit.

    Args:
        path: the folder.
        device: the device's name.
        wanted: what the bundle takes.
        note: the file that remembers a round's pieces; its folder is made if need be.
        limit_bytes: memory for pieces, at least twice that of the largest.
    """

    def __init__(self, path: Path, device: str, wanted: Wanted, note: Path, limit_bytes: int = FOLDER_BYTES) -> None:
        super().__init__(device, wanted)
        self._path, self._note, self._limit_bytes = path, note, limit_bytes
        self._known: dict[str, _Piece] = {}
        self._loaded: OrderedDict[str, dict[str, Array]] = OrderedDict()
        self.refused: dict[str, str] = {}
        self._round, self._pieces = self._resume(self._scan())
        if not self.samples:
            first = f"; {next(iter(self.refused.values()))}" if self.refused else ""
            raise SensorError(f"{path} holds no samples: none of its files is a usable .npz piece{first}")

    @property
    def samples(self) -> int:
        """Rows to train on, of the pieces of the present round."""
        return sum(piece.samples for piece in self._pieces)

    @property
    def test_samples(self) -> int:
        """Rows to test on, of the pieces of the present round."""
        return sum(piece.test_samples for piece in self._pieces)

    def labels(self) -> dict[int, int]:
        """Returns how many training samples each label has."""
        names = sorted({label for piece in self._pieces for label in piece.labels})
        return {label: sum(piece.labels.get(label, 0) for piece in self._pieces) for label in names}

    def batch(self, round: int, step: int, size: int, seed: int) -> Batch:  # noqa: A002  the paper's word for it
        """Returns the batch of a step; the first one of a round looks for new pieces."""
        if round != self._round:
            self._pieces = self._scan() or self._pieces
            _write_note(self._note, round, [piece.line for piece in self._pieces])
            self._round = round
        return super().batch(round, step, size, seed)

    def _resume(self, found: list[_Piece]) -> tuple[int | None, list[_Piece]]:
        """Returns the round that was under way and its pieces, if they are all still there; else no round and all pieces."""
        number, lines = _read_note(self._note)
        kept = [piece for piece in found if piece.line in lines]
        return (number, kept) if kept and len(kept) == len(lines) else (None, found)

    def _scan(self) -> list[_Piece]:
        """Looks through the folder; pieces seen before and unchanged are not read again."""
        told, self.refused = self.refused, {}
        pieces: dict[str, _Piece] = {}
        for path in sorted(self._path.glob("*.npz")):
            try:
                piece = self._known.get(path.name)
                piece = piece if piece and piece.stamp == _stamp(path) else self._admit(path)
            except (SensorError, OSError) as error:
                self.refused[path.name] = str(error)
                if path.name not in told:
                    log.warning("%s is left out: %s", path, error)
            else:
                pieces[path.name] = piece
        self._known = pieces
        return list(pieces.values())

    def _admit(self, path: Path) -> _Piece:
        self._loaded.clear()
        stamp = _stamp(path)
        arrays = read_npz(path, self._wanted, self._limit_bytes // 2)
        for prefix in ("", "test_"):
            if f"{prefix}x" in arrays:
                check_arrays(path.name, prefix, arrays[f"{prefix}x"], arrays[f"{prefix}y"], self._wanted)
        if not len(arrays["x"]):
            raise SensorError(f"{path.name} holds no samples")
        held = sum(array.nbytes for array in arrays.values())
        return _Piece(
            path.name, len(arrays["x"]), len(arrays.get("test_x", ())), held, count_labels(arrays["y"]), stamp
        )

    def _shuffle(self, key: tuple[int, ...]) -> npt.NDArray[np.int64]:
        starts = np.cumsum([0, *(piece.samples for piece in self._pieces)])
        pools: list[list[Array]] = [[]]
        room = self._limit_bytes // 2
        for index in order_of(len(self._pieces), *key):
            room -= self._pieces[index].bytes
            if room < 0 and pools[-1]:
                pools.append([])
                room = self._limit_bytes // 2 - self._pieces[index].bytes
            pools[-1].append(np.arange(starts[index], starts[index + 1]))
        rows = [np.concatenate(pool) for pool in pools]
        return np.concatenate([pool[order_of(len(pool), *key, number)] for number, pool in enumerate(rows)])

    def _rows(self, rows: npt.NDArray[np.int64], *, test: bool) -> tuple[Array, Array]:
        counts = [piece.test_samples if test else piece.samples for piece in self._pieces]
        starts = np.cumsum([0, *counts])
        x = np.empty((len(rows), *self._wanted.shape), self._wanted.dtype)
        y = np.empty(len(rows), np.int64)
        owners = np.searchsorted(starts, rows, side="right") - 1
        for index in np.unique(owners):
            mine, arrays = owners == index, self._load(self._pieces[index])
            x[mine] = arrays["test_x" if test else "x"][rows[mine] - starts[index]]
            y[mine] = arrays["test_y" if test else "y"][rows[mine] - starts[index]]
        return x, y

    def _load(self, piece: _Piece) -> dict[str, Array]:
        if piece.name in self._loaded:
            self._loaded.move_to_end(piece.name)
            return self._loaded[piece.name]
        path = self._path / piece.name
        try:
            if _stamp(path) != piece.stamp:
                raise SensorError(f"{path} has changed during round {self._round}: pieces must not be written to again")
        except OSError as error:
            raise SensorError(f"{path} cannot be read any more: {error.strerror}") from None
        while self._loaded and piece.bytes + self._loaded_bytes() > self._limit_bytes:
            self._loaded.popitem(last=False)
        self._loaded[piece.name] = read_npz(path, self._wanted, self._limit_bytes // 2)
        return self._loaded[piece.name]

    def _loaded_bytes(self) -> int:
        return sum(array.nbytes for arrays in self._loaded.values() for array in arrays.values())


def _stamp(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_mtime_ns, found.st_size


def _read_note(note: Path) -> tuple[int | None, list[list[Any]]]:
    """Returns the round of the note and its pieces; none when it is missing or damaged."""
    try:
        noted = json.loads(note.read_text(encoding="utf-8"))
        return int(noted["round"]), list(noted["pieces"])
    except (OSError, ValueError, KeyError, TypeError):
        return None, []


def _write_note(note: Path, number: int, pieces: list[list[Any]]) -> None:
    """Writes the note whole or not at all, and on the disk before it is relied upon."""
    note.parent.mkdir(parents=True, exist_ok=True)
    draft = note.with_suffix(".draft")
    with draft.open("w", encoding="utf-8") as file:
        json.dump({"round": number, "pieces": pieces}, file)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(note)
