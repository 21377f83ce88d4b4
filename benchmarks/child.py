"""Child processes that are measured: each is a program in `programs/` and answers requests of one JSON line."""

import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from benchmarks.machine import ROOT

PROGRAMS = Path(__file__).resolve().parent / "programs"


class ChildError(RuntimeError):
    """A measured process died or said something else than was asked; the message has its last words."""


class Child:
    """A program that waits for requests, without using the processor while it waits."""

    def __init__(
        self, program: str, told: Mapping[str, Any], *, python: Path | None = None, threads: int | None = None
    ) -> None:
        """Start `programs/<program>.py`.

        Args:
            program: its name without `.py`.
            told: what it is told at the start, as JSON.
            python: the interpreter; with another than our own the checkout is not put on its path.
            threads: limit for the libraries that ask the environment; None leaves it as it is.
        """
        self.name = program
        self._words = tempfile.TemporaryFile("w+", encoding="utf-8")  # noqa: SIM115  closed with the child
        self._process = subprocess.Popen(
            _command(program, told, python),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._words,
            text=True,
            env=_environment(threads, checkout=python is None),
        )

    def ask(self, **request: Any) -> dict[str, Any]:
        """Send a request and wait for the answer.

        Raises:
            ChildError: the process died.
        """
        assert self._process.stdin is not None  # noqa: S101  for mypy: both are pipes
        assert self._process.stdout is not None  # noqa: S101  for mypy
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(request) + "\n")
            self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise ChildError(f"{self.name} ended with code {self._process.wait()}: {self._last_words()}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._process.kill()
        # Waits, and closes the pipes.
        self._process.communicate()
        self._words.close()

    def _last_words(self) -> str:
        self._words.seek(0)
        return _last(self._words.read())


def run_program(program: str, told: Mapping[str, Any], python: Path | None = None) -> dict[str, Any]:
    """Run `programs/<program>.py` to its end; returns the JSON it printed.

    Raises:
        ChildError: it failed.
    """
    done = subprocess.run(
        _command(program, told, python),
        check=False,
        capture_output=True,
        text=True,
        env=_environment(None, checkout=python is None),
    )
    if done.returncode:
        raise ChildError(f"{program} ended with code {done.returncode}: {_last(done.stderr)}")
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def _command(program: str, told: Mapping[str, Any], python: Path | None) -> list[str]:
    return [str(python or sys.executable), "-P", str(PROGRAMS / f"{program}.py"), json.dumps(told)]


def _last(words: str) -> str:
    return " / ".join(words.strip().splitlines()[-4:]) or "without a word"


def _environment(threads: int | None, *, checkout: bool) -> dict[str, str]:
    environ = {**os.environ, "ORT_DISABLE_TELEMETRY": "1"}
    environ.pop("PYTHONPATH", None)
    if checkout:
        environ["PYTHONPATH"] = str(ROOT)
    if threads is not None:
        environ |= {"OMP_NUM_THREADS": str(threads), "OPENBLAS_NUM_THREADS": str(threads)}
    return environ
