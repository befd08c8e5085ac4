"""Blows dealt to a running service: SIGKILL, SIGSTOP, and SIGCONT for some of those stopped."""

import random
import signal
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field, replace

import psutil

from benchmarks.storm_cluster import Cluster
from benchmarks.storm_watch import Blow, Held, Watch

KILL, STOP = "SIGKILL", "SIGSTOP"


@dataclass(frozen=True)
class Plan:
    """How many blows of each kind are dealt to which processes, as ``{(signal, process): number}``."""

    blows: dict[tuple[str, str], int]
    continued: float = 0.7
    """Which share of the stopped processes goes on again; workers and web processes always do."""
    stopped_seconds: tuple[float, float] = (2.0, 8.0)

    def share(self, share: float) -> "Plan":
        """The same with that share of the blows, of each kind one at least."""
        return replace(
            self, blows={blow: max(1, round(share * number)) for blow, number in self.blows.items()}
        )

    def order(self, generator: random.Random) -> list[tuple[str, str]]:
        """All of them, shuffled."""
        every = [blow for blow, number in self.blows.items() for _ in range(number)]
        generator.shuffle(every)
        return every


@dataclass
class Storm:
    """Deals blows and remembers them in the watch."""

    cluster: Cluster
    watch: Watch
    plan: Plan
    generator: random.Random
    dealt: dict[str, int] = field(default_factory=dict)
    _timers: list[threading.Timer] = field(default_factory=list)

    def deal(self, number: str, target: str) -> bool:
        """One blow; whether there was a process to hit."""
        victims = self._victims(target)
        if not victims:
            return False
        held = self.watch.held()
        victim = self.generator.choice(self._at_work(victims, held, target))
        suspects = [one for one in held if _is_of(one, _hands(victim, target))]
        struck = time.time()
        try:
            victim.send_signal(signal.SIGKILL if number == KILL else signal.SIGSTOP)
        except psutil.Error:
            return False
        name = f"{number} {target}"
        self.watch.blows.append(Blow(name, struck, suspects))
        self.dealt[name] = self.dealt.get(name, 0) + 1
        if number == STOP:
            self._perhaps_continue(victim, target)
        return True

    def _perhaps_continue(self, victim: psutil.Process, target: str) -> None:
        if target == "child" and self.generator.random() > self.plan.continued:
            self.dealt["never continued"] = self.dealt.get("never continued", 0) + 1
            return
        timer = threading.Timer(self.generator.uniform(*self.plan.stopped_seconds), _continue, (victim,))
        timer.daemon = True
        timer.start()
        self._timers.append(timer)

    def _victims(self, target: str) -> list[psutil.Process]:
        cluster = self.cluster
        if target == "child":
            found = cluster.find("workers.execution.child")
        elif target == "worker":
            found = cluster.workers()
        elif target == "pool":
            found = cluster.pools()
        else:
            found = cluster.find({"web": "service.processes.web", "dispatcher": "workers.dispatcher"}[target])
        return [one for one in found if _runs(one)]

    def _at_work(self, victims: list[psutil.Process], held: list[Held], target: str) -> list[psutil.Process]:
        """Those with jobs in their hands, so that something is at stake; all of them where none has."""
        busy = [one for one in victims if any(_is_of(lease, _hands(one, target)) for lease in held)]
        return busy or victims

    def over(self) -> None:
        """Let what was to go on go on."""
        for timer in self._timers:
            timer.join()


def _hands(victim: psutil.Process, target: str) -> set[int]:
    """The processes whose jobs the victim's end endangers: a child's are its parent's, a worker's its pool's."""
    try:
        if target == "child":
            return {victim.ppid()}
        return {victim.pid, *(one.pid for one in victim.children())}
    except psutil.Error:
        return set()


def _is_of(held: Held, processes: set[int]) -> bool:
    return int(held.worker.rpartition(":")[2]) in processes


def _runs(process: psutil.Process) -> bool:
    try:
        return process.status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE)
    except psutil.Error:
        return False


def _continue(process: psutil.Process) -> None:
    with suppress(psutil.Error):
        process.send_signal(signal.SIGCONT)
