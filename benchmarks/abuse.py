"""One user who tries to stop the service, with twenty beside it who only work.

    python -m benchmarks.abuse [--database sqlite|postgresql] [--attack NAME ...] [--seconds N] [--json FILE]

Against a real web process over each database (without `--database` over both, `benchmarks.api_databases`) every
attack of `benchmarks.abuse_attacks` is run for some seconds, one after another: with a ``write`` token, from an
address of its own, while twenty clients in another process, with another token, ask once a second. An attack that
reads what it may not, or is answered by a fault, ends the benchmark. Written are, worst of both databases:

    {"failed_good_requests", "p99_ms", "memory_kept_bytes", "slowest_attack_seconds"}

answers of good requests that are not 200; their 99th percentile; what the processes hold afterwards beyond what they
held before; and the longest that an attack waited for its answer, a refusal with `Retry-After` being one. Held
against: 0, 250 ms, 200 MB, 2 s. Where other programs use the machine the times are theirs too: each attack comes with
the share of a processor that the web process used meanwhile, and with the machine's load.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from benchmarks.abuse_attacks import ATTACKS, DOMAINS, Attack, Target, many_conflicts, name_of, traps
from benchmarks.api import requests
from benchmarks.api_databases import database_url
from benchmarks.api_load import Load, Observed, drive
from benchmarks.api_store import Sizes, fill
from benchmarks.api_web import Web, served
from mixing.change.revision import Changes
from service.tokens import Scope, create_token, make_code
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from store.tables import DomainRow, DomainSet, Revision

GOOD_CLIENTS = 20
REST_SECONDS = 1.0
"""After the last attack, for what it left to end."""
LAST = 19
"""Niceness of the attackers, who would be on machines of their own: what the service gives them counts, not what
sending it takes from two cores that all share here."""
OPERATOR = "a-token-of-the-operator"


@dataclass(frozen=True)
class Scene:
    """A running service, who attacks it, and who works."""

    web: Web
    target: Target
    good_token: str
    wanted: dict[str, list[str]]
    """What the good clients ask, by endpoint."""


def attack(target: Target, how: Attack, at_once: int, seconds: float) -> Target:
    """Run one attack again and again, in a process of its own that waits for all others."""
    os.nice(LAST - os.nice(0))
    until = time.monotonic() + seconds

    def again() -> None:
        while time.monotonic() < until:
            how(target)

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(again) for _ in range(at_once)]:
            done.result()
    return target


@contextmanager
def _scene(kind: str) -> Iterator[Scene]:
    with tempfile.TemporaryDirectory() as name, database_url(kind, Path(name)) as url:
        data = Path(name) / "data"
        (data / "corpora").mkdir(parents=True)
        settings = Settings(data_directory=data, database_url=url, token=OPERATOR)
        upgrade(url)
        database = Database(url)
        wanted = requests(fill(database, Sizes(runs=1000, optimizations=10)))
        _wide_sets(database)
        with database.write() as session:
            good, bad = (create_token(session, name, [Scope.WRITE]) for name in ("good", "attacker"))
            code = make_code(session, OPERATOR)
        database.close()
        corpora = data / "corpora"
        with (
            traps(corpora, Path(name) / "outside"),
            served(settings, workers=1, log=data / "web.log") as web,
        ):
            yield Scene(web, Target(web.url, bad, code, corpora), good, wanted)


def _wide_sets(database: Database) -> None:
    """Two domain sets of two thousand domains: one counted, one of which only the sizes are declared."""
    names = [name_of(index) for index in range(DOMAINS)]
    for set_name, counted in (("wide", 10**9), ("uncounted", None)):
        with database.write() as session:
            owner = DomainSet(name=set_name)
            session.add(owner)
            session.flush()
            revision = Revision(
                domain_set_id=owner.id,
                number=1,
                tokenizer={"vocabulary_size": 4096},
                vocabulary_size=4096,
                held_out_fraction=0.1,
                content_hash="0" * 64,
                changes=Changes(added=tuple(names)).to_dict(),
            )
            session.add(revision)
            session.flush()
            session.add_all(
                DomainRow(
                    revision_id=revision.id,
                    name=one,
                    files=[f"/nowhere/{one}"],
                    declared_tokens=10**9,
                    counted_tokens=counted,
                )
                for one in names
            )


def _held_bytes(web: Web) -> int:
    """Resident memory of the web process and of those it has started."""
    found = 0
    for pid in web.pids:
        for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
            try:
                found += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    return found


def measured(kind: str, chosen: Mapping[Attack, int], seconds: float) -> dict[str, Any]:
    """The chosen attacks, each by so many at once, over one database."""
    spawned = multiprocessing.get_context("spawn")
    with (
        _scene(kind) as scene,
        concurrent.futures.ProcessPoolExecutor(1, spawned) as good,
        concurrent.futures.ProcessPoolExecutor(1, spawned) as bad,
    ):
        web, target = scene.web, scene.target
        bad.submit(many_conflicts, target).result()  # what the first computation imports is no attack's
        fresh, attacks, statuses = _held_bytes(web), {}, Counter()
        every: list[float] = []
        for how, at_once in chosen.items():
            started, used = time.monotonic(), web.cpu_seconds()
            asking = good.submit(
                drive, web.url, scene.good_token, scene.wanted, Load(GOOD_CLIENTS, seconds, 1.0)
            )
            done = bad.submit(attack, target, how, at_once, seconds * 0.8).result()
            processors = (web.cpu_seconds() - used) / (time.monotonic() - started)
            seen: Observed = asking.result()
            asked = [one for found in seen.seconds.values() for one in found]
            every, statuses = every + asked, statuses + seen.statuses
            attacks[how.__name__] = {
                "slowest_seconds": round(max(done.seconds, default=0.0), 3),
                "answers": {str(status): number for status, number in sorted(done.statuses.items())},
                "good_p99_ms": _percentile(asked, 99),
                "held_bytes_after": _held_bytes(web) - fresh,
                "web_processors": round(processors, 2),
                "load": round(os.getloadavg()[0], 1),
            }
        time.sleep(REST_SECONDS)
        return {
            "failed_good_requests": sum(n for status, n in statuses.items() if status != 200),
            "good_requests": len(every),
            "p50_ms": _percentile(every, 50),
            "p99_ms": _percentile(every, 99),
            "memory_kept_bytes": max(0, _held_bytes(web) - fresh),
            "slowest_attack_seconds": max(one["slowest_seconds"] for one in attacks.values()),
            "attacks": attacks,
        }


def _percentile(seconds: list[float], percent: int) -> float:
    """In milliseconds."""
    return round(1000 * float(np.percentile(seconds, percent)), 1)


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"))
    names = [attack.__name__ for attack in ATTACKS]
    parser.add_argument("--attack", choices=names, nargs="+", default=names, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each attack")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    kinds = (given.database,) if given.database else ("sqlite", "postgresql")
    chosen = {attack: number for attack, number in ATTACKS.items() if attack.__name__ in given.attack}
    found = {kind: measured(kind, chosen, given.seconds) for kind in kinds}
    goals = ("failed_good_requests", "p99_ms", "memory_kept_bytes", "slowest_attack_seconds")
    result = {name: max(one[name] for one in found.values()) for name in goals} | {"databases": found}
    text = json.dumps(result, indent=2)
    sys.stdout.write(text + "\n")
    if given.json is not None:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
