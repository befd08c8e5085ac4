"""Training's end of an evaluator: snapshots out, measurements in."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from safetensors.torch import load, save
from torch import Tensor

from proxy_models.export.nameless_file import content_of, nameless_file, replace_content

Found = list[dict[str, float]]
"""What each member's tasks measured: ``series -> value``."""


class EvaluatorEnded(RuntimeError):
    """The process ended without an answer, killed or by what it wrote to standard error."""


class Evaluator:
    """A process with the models of a run or wave, which evaluates one snapshot at a time.

    ``order`` is what it is told (`evaluator`), through a nameless file in ``directory`` as the snapshots are: with a
    pipe training would wait until the process reads. Raises OSError where there is no room for a file or a process.
    """

    def __init__(self, order: Mapping[str, Any], directory: Path) -> None:
        self._file = nameless_file(directory)
        try:
            with nameless_file(directory) as told:
                replace_content(told.fileno(), json.dumps(order).encode())
                self._process = self._start(told.fileno(), self._file.fileno())
        except OSError:
            self._file.close()
            raise
        self._answers = self._process.stdout

    @staticmethod
    def _start(*files: int) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "proxy_models.evaluation.evaluator", *map(str, files)]
        return subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, pass_fds=files
        )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def send(self, step: int, members: Sequence[int], parameters: Mapping[str, Tensor]) -> None:
        """Have it evaluate these members; ``parameters`` are named ``member.name``. Raises OSError.

        The snapshot before has to be answered: there is room for one.
        """
        content = save({name: one.cpu().contiguous() for name, one in parameters.items()})
        replace_content(self._file.fileno(), content)
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"step": step, "members": list(members)}) + "\n")
        self._process.stdin.flush()

    def answer(self, timeout: float) -> Found | None:
        """What it found, or None when ``timeout`` seconds brought nothing. Raises `EvaluatorEnded`."""
        assert self._answers is not None
        if not wait([self._answers.fileno()], timeout):
            return None
        line = self._answers.readline()
        if not line.endswith("\n"):  # nothing, or what it was killed over
            raise EvaluatorEnded("it ended without an answer")
        return json.loads(line)["found"]

    def snapshot(self) -> dict[str, Tensor]:
        """The parameters that were sent last, whatever became of the process."""
        return load(content_of(self._file.fileno()))

    def close(self) -> None:
        """End it now. It is gone, and with it what it took of its device, when this returns."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            if stream is not None:
                with suppress(BrokenPipeError):  # a line it did not live to read
                    stream.close()
        self._file.close()
