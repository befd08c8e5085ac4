"""What takes longer than a tenth of a second, in a process of its own: few at once, bounded in time and memory.

    planned = compute(plan, settings, body)
    document = compute.read(is_wide, revision_document, database, name)

``plan`` is a function of a module, its arguments and its answer can be pickled, and a `Problem` it raises is raised
here. The process is forked from one that has everything imported and does nothing else, so it starts in some
milliseconds, and what it took of memory is given back when it ends: with its answer, at its limit, or as soon as the
client that waits for it has left. It opens a connection of its own to the database; those of the web process stay
with the requests that are answered at once. So do the processors: it waits for the web process, as a `PATIENT` one.

What is only large, a document of two thousand domains, is read so too (`Computation.read`): made in a thread, it
would hold Python's lock while everybody else waits. Who reads does not wait for those who compute.
"""

import gc
import logging
import multiprocessing
import os
import resource
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from traceback import format_exc
from typing import Any, Concatenate, Final, ParamSpec, TypeVar

import psutil

from store.engine import Database, database_for
from store.problems import Problem, Unavailable
from store.settings import Settings

Given = ParamSpec("Given")
Answer = TypeVar("Answer")
PATIENT: Final = 5
"""Niceness of what a request waits for outside the web process, which answers all others meanwhile."""
_COMPUTING, _READING = "computing", "reading"
_log = logging.getLogger("mixwright.computation")
_PRELOADED = [
    "mixing.answer.whatif",
    "service.http.app",
    "service.processes.address",
    "service.processes.web",
    "store.lifeline",
]
"""All that computes, and whatever else the module imports that the web process was started with: each process that
is forked runs that module's head again, and would import what is not there yet for a third of a second."""


class Busy(Unavailable):
    """Too many computations at once; the same request will do in a moment."""

    def __init__(self) -> None:
        super().__init__(
            "busy", "As many requests that take long are under way as may be at once; come again in a moment."
        )
        self.headers = {"Retry-After": "2"}


class TooMuch(Unavailable):
    """A computation went over one of its limits."""

    def __init__(self, code: str, what: str, setting: str) -> None:
        super().__init__(code, f"The computation {what}; ask for less, or have the operator raise {setting}.")
        self.headers = {"Retry-After": "60"}


class Patience:
    """How long a request may wait still: for a thread, for a place to compute in and for the next one, in all."""

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.seconds, self._clock = seconds, clock

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within it time counts."""
        began = self._clock()
        try:
            yield
        finally:
            self.seconds = max(0.0, self.seconds - (self._clock() - began))


class Computations:
    """The computations of one web process. Safe to use from several threads."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._places = {
            kind: threading.BoundedSemaphore(settings.compute_processes) for kind in (_COMPUTING, _READING)
        }
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(_PRELOADED)

    def warm_up(self) -> None:
        """Import now what the first computation would wait for."""
        Computation(self, Patience(self._settings.wait_seconds))(os.getpid)

    def start(
        self, function: Callable[..., object], arguments: tuple[object, ...]
    ) -> "tuple[BaseProcess, Connection]":
        """A process that computes, and where its answer comes from."""
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(
            target=_compute, args=(sender, dict(os.environ), self._settings, function, arguments), daemon=True
        )
        try:
            process.start()
        finally:
            sender.close()
        return process, receiver

    @contextmanager
    def place(self, kind: str, patience: Patience) -> Iterator[None]:
        """Wait for a place, and leave it to the next; raises Busy."""
        with patience.waiting():
            has_place = self._places[kind].acquire(timeout=patience.seconds)
        if not has_place:
            raise Busy
        try:
            yield
        finally:
            self._places[kind].release()

    @property
    def settings(self) -> Settings:
        """Of the service."""
        return self._settings

    @property
    def seconds(self) -> float:
        """How long one may take."""
        return self._settings.compute_seconds


class Computation:
    """What one request computes, one thing after another; `leave` ends it from another thread."""

    def __init__(self, all_of_them: Computations, patience: Patience) -> None:
        self._all, self._patience = all_of_them, patience
        self._guard = threading.Lock()
        self._process: BaseProcess | subprocess.Popen[str] | None = None
        self._has_left = False

    def __call__(
        self, function: Callable[Given, Answer], *given: Given.args, **named: Given.kwargs
    ) -> Answer:
        """What the function answers, from a process of its own.

        Raises:
            Busy, TooMuch: nothing was computed, or not to the end.
            Problem: the function's own.
        """
        assert not named, "arguments are given by position"
        return self._run(_COMPUTING, function, given)

    def read(
        self,
        is_much: bool,
        function: Callable[Concatenate[Database, Given], Answer],
        database: Database,
        *given: Given.args,
        **named: Given.kwargs,
    ) -> Answer:
        """What the function reads of the database: here, or where that ``is_much`` as something computed."""
        assert not named, "arguments are given by position"
        if not is_much:
            return function(database, *given, **named)
        return self._run(_READING, _reading, (self._all.settings, function, given))

    def _run(self, kind: str, function: Callable[..., Any], given: tuple[object, ...]) -> Any:
        with self._all.place(kind, self._patience):
            try:
                if self._has_left:
                    raise _nobody_waits()
                # Without the guard, for which the event loop waits in `leave`: a fork may take its time.
                process, receiver = self._all.start(function, given)
                with self._guard:
                    self._process = process
                with receiver:
                    if self._has_left:
                        raise _nobody_waits()
                    return self._answer(receiver, process)
            finally:
                self._end()

    @contextmanager
    def ending(self, program: subprocess.Popen[str]) -> Iterator[None]:
        """Within it `leave` ends a program that the request waits for; raises Unavailable where it did."""
        with self._guard:
            self._process = program
            if self._has_left:
                program.kill()
        try:
            yield
        finally:
            with self._guard:
                self._process = None
        if self._has_left:
            raise _nobody_waits()

    def leave(self) -> None:
        """End what is computed now, and begin nothing more."""
        with self._guard:
            self._has_left = True
            if self._process is not None:
                self._process.kill()

    def _answer(self, receiver: Connection, process: BaseProcess) -> Any:
        if not receiver.poll(self._all.seconds):
            raise TooMuch("takes_too_long", f"took over {self._all.seconds:g} s", "MIXWRIGHT_COMPUTE_SECONDS")
        try:
            kind, value = receiver.recv()
        except EOFError:
            process.join(1)
            raise Unavailable(
                "computation_lost",
                f"The computation ended without an answer (exit status {process.exitcode}).",
            ) from None
        if kind == "answer":
            return value
        if kind == "memory":
            raise TooMuch("takes_too_much", "needs too much memory", "MIXWRIGHT_COMPUTE_MEMORY_BYTES")
        if kind == "problem":
            raise _raised(value)
        raise RuntimeError(f"a computation failed:\n{value}")

    def _end(self) -> None:
        with self._guard:
            process, self._process = self._process, None
        if isinstance(process, BaseProcess):
            process.kill()
            process.join()
            process.close()


def _nobody_waits() -> Unavailable:
    return Unavailable("client_left", "Nobody waits for the answer any more.")


def _compute(
    sender: Connection,
    environment: Mapping[str, str],
    settings: Settings,
    function: Callable[..., object],
    arguments: tuple[object, ...],
) -> None:
    """In the process: the function within the limits, and how it ended."""
    os.nice(PATIENT)
    gc.freeze()  # a collection would look at, and so copy, all that was there before the fork
    os.environ.update(environment)
    used = psutil.Process().memory_info().vms
    # The first bounds it even where the web process was killed and nobody waits any more.
    for kind, most in (
        (resource.RLIMIT_CPU, int(settings.compute_seconds) + 2),
        (resource.RLIMIT_AS, used + settings.compute_memory_bytes),
    ):
        hard = resource.getrlimit(kind)[1]
        resource.setrlimit(kind, (most if hard == resource.RLIM_INFINITY else min(most, hard), hard))
    try:
        with settings.reading():
            message = ("answer", function(*arguments))
    except MemoryError:
        message = ("memory", None)
    except Problem as problem:
        shown = (problem.status, problem.code, problem.detail, problem.field, problem.extra)
        message = ("problem", (*shown, None if problem.headers is None else dict(problem.headers)))
    except Exception:
        message = ("failure", format_exc())
    with suppress(BrokenPipeError):
        sender.send(message)
    sender.close()


def _reading(settings: Settings, function: Callable[..., object], given: tuple[object, ...]) -> object:
    with database_for(settings.resolved_database_url) as database:
        return function(database, *given)


def _raised(value: tuple[int, str, str, str | None, dict[str, object], dict[str, str] | None]) -> Problem:
    status, code, detail, field, extra, headers = value
    problem = Problem(code, detail, field, **extra)
    problem.status, problem.headers = status, headers
    return problem
