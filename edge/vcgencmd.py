"""`vcgencmd` of Raspberry Pi OS: what the firmware tells. A process for each question, so it is asked rarely, in bounded time."""

import shutil
import subprocess

from edge.files import UnreadableError

SECONDS = 2.0
"""Longest wait for an answer; the firmware takes some milliseconds."""


class Vcgencmd:
    """Asks the firmware of a Raspberry Pi.

    Args:
        program: a name to look for on PATH, or a path.
        seconds: longest wait for an answer.
    """

    def __init__(self, program: str = "vcgencmd", seconds: float = SECONDS) -> None:
        self.program = program
        self._seconds = seconds

    def ask(self, question: str) -> str:
        """Returns the answer; raises UnreadableError with what went wrong."""
        found = shutil.which(self.program)
        if found is None:
            raise UnreadableError(f"there is no program {self.program} on PATH")
        said = f"{self.program} {question}"
        try:
            done = subprocess.run(  # noqa: S603  the user's own program, without a shell
                [found, question], capture_output=True, text=True, timeout=self._seconds, check=False
            )
        except subprocess.TimeoutExpired:
            raise UnreadableError(f"{said} gave no answer within {self._seconds:g} s") from None
        except (OSError, UnicodeDecodeError) as error:
            raise UnreadableError(f"{said} cannot be run: {error}") from None
        answer = done.stdout.strip()
        # It ends with 0 also where the firmware does not know the question.
        if done.returncode or answer.startswith("error="):
            why = (answer or done.stderr.strip())[:120] or f"exit code {done.returncode}"
            raise UnreadableError(f"{said} failed: {why} (users want membership of the group video)")
        return answer
