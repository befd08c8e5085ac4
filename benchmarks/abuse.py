"""One user who tries to stop the service, with twenty beside it who only work.

    python -m benchmarks.abuse [--database sqlite|postgresql] [--seconds N] [--json FILE]

Against a real web process over each database (without `--database` over both, `benchmarks.api_databases`) every
attack is run for some seconds, one after another: with a ``write`` token, from an address of its own, while twenty
clients with another token ask once a second. Written are, worst of both databases:

    {"failed_good_requests", "p99_ms", "memory_kept_bytes", "slowest_attack_seconds"}

answers of good requests that are not 200; their 99th percentile; what the processes hold afterwards beyond what they
held before; and the longest that an attack waited for its answer, a refusal with `Retry-After` being one. Held
against: 0, 250 ms, 200 MB, 2 s.
"""

import argparse
import concurrent.futures
import http.client
import json
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import pyarrow
import pyarrow.parquet

from benchmarks.api import requests
from benchmarks.api_databases import database_url
from benchmarks.api_load import Load, drive
from benchmarks.api_store import Sizes, fill
from benchmarks.api_web import Web, served
from mixing.change.revision import Changes
from service.tokens import Scope, create_token
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from store.tables import DomainRow, DomainSet, Revision

GOOD_CLIENTS = 20
DOMAINS, SHARES = 2000, 200
ATTACKER = "127.0.0.2"
"""Loopback has a network of addresses, so that the attacker's connections are not counted with the others'."""
PATIENCE = 120.0


@dataclass(frozen=True)
class Target:
    """The service as the attacker sees it, and what it keeps of the answers."""

    url: str
    token: str
    folder: Path
    seconds: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    def connection(self) -> http.client.HTTPConnection:
        """A new connection, from the attacker's address."""
        place = urlsplit(self.url)
        return http.client.HTTPConnection(
            str(place.hostname), place.port, timeout=PATIENCE, source_address=(ATTACKER, 0)
        )

    def post(self, path: str, body: dict[str, Any]) -> None:
        """Send it and note how long the answer took."""
        started, connection = time.perf_counter(), self.connection()
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        connection.request("POST", path, json.dumps(body), headers)
        answer = connection.getresponse()
        answer.read()
        connection.close()
        self.seconds.append(time.perf_counter() - started)
        self.statuses[answer.status] += 1


Attack = Callable[[Target], None]


def _question(**more: Any) -> dict[str, Any]:
    proxy = {"size": "nano-0.1M", "tokens": 65_536}
    return {"domain_set": "wide", "method": "olmix", "target_tokens": 4 * 10**11, "proxy": proxy, **more}


def _conflicting() -> dict[str, Any]:
    """Shares of which a hundred and one are too much together, over two thousand capped domains."""
    shares = [
        {"domains": [_name(index) for index in range(10 * share, 10 * share + 10)], "minimum": 0.01}
        for share in range(SHARES)
    ]
    return _question(shares=shares, repetition_cap=100)


def many_conflicts(target: Target) -> None:
    """Dry runs whose two hundred shares conflict."""
    target.post("/v1/optimizations?dry_run=true", _conflicting())


def huge_plans(target: Target) -> None:
    """Dry runs of twenty thousand runs over domains that are not counted yet."""
    target.post("/v1/optimizations?dry_run=true", _question(runs=20_000, domain_set="uncounted"))


def leaving(target: Target) -> None:
    """The same as `many_conflicts`, but nobody waits for the answer."""
    connection = target.connection()
    headers = {"Authorization": f"Bearer {target.token}", "Content-Type": "application/json"}
    connection.request("POST", "/v1/optimizations?dry_run=true", json.dumps(_conflicting()), headers)
    time.sleep(0.05)
    connection.close()


def circles_of_links(target: Target) -> None:
    """``**`` over a folder with two links to its own ancestor."""
    _post_files(target, f"{target.folder}/circle/**/*.jsonl")


def parquet_bombs(target: Target) -> None:
    """A few hundred bytes that say they are gigabytes."""
    _post_files(target, f"{target.folder}/bomb.parquet")


def slow_heads(target: Target) -> None:
    """A connection that sends a byte now and then; it is never answered, only closed."""
    connection = target.connection()
    connection.connect()
    assert connection.sock is not None
    try:
        for byte in b"GET /v1/runs HTTP/1.1\r\nHo":
            connection.sock.sendall(bytes([byte]))
            time.sleep(0.2)
    except OSError:
        pass
    connection.close()


def many_requests(target: Target) -> None:
    """Small requests without a pause."""
    target.post("/v1/optimizations", {})


def _post_files(target: Target, pattern: str) -> None:
    domains = [{"name": name, "files": [pattern]} for name in ("a", "b")]
    target.post("/v1/domain-sets", {"name": "attack", "domains": domains})


ATTACKS: dict[Attack, int] = {
    many_conflicts: 42,
    huge_plans: 10,
    leaving: 20,
    circles_of_links: 16,
    parquet_bombs: 8,
    slow_heads: 50,
    many_requests: 20,
}
"""And by how many at once."""


def attack(target: Target, how: Attack, at_once: int, seconds: float) -> None:
    """Run one attack again and again."""
    until = time.monotonic() + seconds

    def again() -> None:
        while time.monotonic() < until:
            how(target)

    with concurrent.futures.ThreadPoolExecutor(at_once) as pool:
        for done in [pool.submit(again) for _ in range(at_once)]:
            done.result()


def _name(index: int) -> str:
    return f"source-{index % 20}:topic-{index:04d}"


def _wide_sets(database: Database) -> None:
    """Two domain sets of two thousand domains: one counted, one of which only the sizes are declared."""
    for name, counted in (("wide", 10**9), ("uncounted", None)):
        with database.write() as session:
            owner = DomainSet(name=name)
            session.add(owner)
            session.flush()
            names = [_name(index) for index in range(DOMAINS)]
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


def _traps(folder: Path) -> None:
    circle = folder / "circle" / "deep"
    circle.mkdir(parents=True)
    (circle / "one").symlink_to(folder / "circle")
    (circle / "two").symlink_to(folder / "circle")
    rows = pyarrow.table({"text": pyarrow.array(["x" * 100_000] * 20_000).dictionary_encode()})
    pyarrow.parquet.write_table(rows, folder / "bomb.parquet", compression="zstd")


@contextmanager
def _service(kind: str) -> Iterator[tuple[Web, Settings, dict[str, list[str]], dict[str, str]]]:
    with tempfile.TemporaryDirectory() as name, database_url(kind, Path(name)) as url:
        data = Path(name) / "data"
        (data / "corpora").mkdir(parents=True)
        settings = Settings(data_directory=data, database_url=url, token="a-token-of-the-operator")
        upgrade(url)
        database = Database(url)
        wanted = requests(fill(database, Sizes(runs=1000, optimizations=10)))
        _wide_sets(database)
        _traps(data / "corpora")
        with database.write() as session:
            tokens = {name: create_token(session, name, [Scope.WRITE]) for name in ("good", "attacker")}
        database.close()
        with served(settings, workers=1, log=data / "web.log") as web:
            yield web, settings, wanted, tokens


def _held_bytes(web: Web) -> int:
    """Resident memory of the web process and of those it has started."""
    found = 0
    for pid in web.pids:
        with_children = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
        for process in with_children:
            try:
                found += process.memory_info().rss
            except psutil.NoSuchProcess:
                continue
    return found


def measured(kind: str, seconds: float) -> dict[str, Any]:
    """All attacks over one database."""
    with _service(kind) as (web, settings, wanted, tokens):
        target = Target(web.url, tokens["attacker"], settings.data_directory / "corpora")
        many_conflicts(target)  # what the first computation imports is no attack's
        target.seconds.clear()
        fresh = _held_bytes(web)
        good: list[Any] = []
        whole = len(ATTACKS) * seconds
        load = Load(GOOD_CLIENTS, whole, 1.0)
        clients = threading.Thread(target=lambda: good.append(drive(web.url, tokens["good"], wanted, load)))
        clients.start()
        slowest, held = {}, {}
        for how, at_once in ATTACKS.items():
            attack(target, how, at_once, seconds * 0.8)
            slowest[how.__name__] = round(max(target.seconds, default=0.0), 3)
            target.seconds.clear()
            held[how.__name__] = _held_bytes(web) - fresh
        clients.join()
        time.sleep(1.0)  # what the last attack left is ended
        seen = good[0]
        every = [one for found in seen.seconds.values() for one in found]
        return {
            "failed_good_requests": sum(n for status, n in seen.statuses.items() if status != 200),
            "good_requests": len(every),
            "p50_ms": round(1000 * float(np.percentile(every, 50)), 1),
            "p99_ms": round(1000 * float(np.percentile(every, 99)), 1),
            "memory_kept_bytes": max(0, _held_bytes(web) - fresh),
            "slowest_attack_seconds": max(slowest.values()),
            "attacks": slowest,
            "held_bytes_after": held,
            "attack_answers": {str(status): number for status, number in sorted(target.statuses.items())},
        }


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"))
    parser.add_argument("--seconds", type=float, default=5.0, help="of each attack")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    kinds = (given.database,) if given.database else ("sqlite", "postgresql")
    found = {kind: measured(kind, given.seconds) for kind in kinds}
    names = ("failed_good_requests", "p99_ms", "memory_kept_bytes", "slowest_attack_seconds")
    result = {name: max(one[name] for one in found.values()) for name in names} | {"databases": found}
    text = json.dumps(result, indent=2)
    sys.stdout.write(text + "\n")
    if given.json is not None:
        given.json.write_text(text + "\n")


if __name__ == "__main__":
    main()
