"""The API under load: 100 clients on a store of 10,000 runs while jobs write to it, and a web process that is killed.

    python -m benchmarks.api [--database sqlite|postgresql] [--workers N] [--json FILE]

The web processes are real ones (``service.processes.web``), the clients are connections of another process,
and a third one
claims jobs, renews leases and finishes them as the supervisor does. `--database postgresql` makes and drops a
database on the server of ``MIXWRIGHT_TEST_POSTGRES`` (127.0.0.1:5432 without).

Two loads. *Once a second* is how people and programs ask: an answer about work under way says ``Retry-After: 1``.
Every client has a moment of its own within the second, and a request that is due while the answer before it is late
has waited since then. *Without a pause* finds the throughput: 100 clients who ask again at once always wait for each
other, so that latency is clients over throughput, whatever a single request takes.

Where other programs use the machine, ``chrt -r 1 python -m benchmarks.api`` goes before them; the result says so.

Held against: no answer of 500 or more; at 100 clients once a second, p99 under 100 ms on PostgreSQL and under 250 ms
on SQLite; a create that is repeated while the web processes are killed makes one resource. The goal is read as the
first load: with the second, 100 ms would be a thousand requests a second, a goal of throughput.
"""

import argparse
import asyncio
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import text

from benchmarks.api_databases import database_url
from benchmarks.api_load import Load, drive
from benchmarks.api_store import DOMAINS, Sizes, Stored, fill
from benchmarks.api_web import Web, served
from service.processes.address import answers
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings

CLIENTS = 100
GOAL_MS = {"postgresql": 100.0, "sqlite": 250.0}
TOKEN = "a-token-for-the-benchmark"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


def requests(stored: Stored) -> dict[str, list[str]]:
    """Endpoint -> addresses, drawn from in turn; the endpoints are asked equally often."""
    return {
        "GET /v1/optimizations": ["/v1/optimizations"],
        "GET /v1/optimizations/{id}": [f"/v1/optimizations/{one}" for one in stored.optimizations],
        "GET /v1/runs": ["/v1/runs"],
        "GET /v1/runs?swarm=": [f"/v1/runs?swarm={one}&limit=50" for one in stored.swarms],
        "GET /v1/runs/{id}": [f"/v1/runs/{one}" for one in stored.runs],
        "GET /v1/swarms": ["/v1/swarms"],
        "GET /v1/swarms/{id}": [f"/v1/swarms/{one}" for one in stored.swarms],
        "GET /v1/domain-sets": ["/v1/domain-sets"],
        "GET /v1/domain-sets/{name}": [f"/v1/domain-sets/pool-{index}" for index in range(10)],
        "GET /v1/mixtures": ["/v1/mixtures"],
        "GET /v1/mixtures/{id}": [f"/v1/mixtures/{one}" for one in stored.mixtures],
        "GET /v1/launches": ["/v1/launches"],
        "GET /v1/launches/{id}": [f"/v1/launches/{one}" for one in stored.launches],
    }


@contextmanager
def writing(settings: Settings) -> Iterator[None]:
    """A process that claims jobs, renews leases and finishes them, as a supervisor of four slots would."""
    command = [sys.executable, "-m", "benchmarks.api_writer"]
    process = subprocess.Popen(command, env={**os.environ, **settings.environment()}, stdin=subprocess.PIPE)
    try:
        yield
    finally:
        if process.stdin is not None:
            process.stdin.close()
        if process.wait(30) != 0:
            raise RuntimeError("the writer failed")


def measured(web: Web, wanted: dict[str, list[str]], load: Load) -> dict[str, Any]:
    """What the clients saw, and what it cost the web processes."""
    cpu = web.cpu_seconds()
    seen = drive(web.url, TOKEN, wanted, load)
    cpu = web.cpu_seconds() - cpu
    every = [one for found in seen.seconds.values() for one in found]
    return {
        "requests_per_second": round(len(every) / seen.taken, 1),
        "web_cores_used": round(cpu / seen.taken, 2),
        "web_cpu_ms_per_request": round(1000 * cpu / len(every), 2),
        "client_cpu_ms_per_request": round(1000 * seen.own_cpu_seconds / len(every), 2),
        "statuses": {str(status): number for status, number in sorted(seen.statuses.items())},
        "all": _percentiles(every),
        "endpoints": {name: _percentiles(found) for name, found in seen.seconds.items() if found},
    }


def _percentiles(seconds: list[float]) -> dict[str, float]:
    p50, p99 = np.percentile(np.asarray(seconds) * 1000, [50, 99])
    return {"requests": len(seconds), "p50_ms": round(float(p50), 1), "p99_ms": round(float(p99), 1)}


async def repeat_through_kills(web: Web, kills: int = 3, keys: int = 20) -> dict[str, int]:
    """Send each of ``keys`` creates again and again while the web process is killed; count what was made."""
    made: dict[str, set[str]] = {str(key): set() for key in range(keys)}
    lost = 0
    is_over = asyncio.Event()
    weights = dict.fromkeys(DOMAINS, 1 / len(DOMAINS))

    async with httpx.AsyncClient(base_url=web.url, headers=HEADERS, timeout=60) as http:

        async def client(key: str) -> None:
            nonlocal lost
            body = {"domain_set": "pool-0", "name": f"mixture-{key}", "weights": weights}
            while not is_over.is_set() or not made[key]:
                try:
                    response = await http.post(
                        "/v1/mixtures", json=body, headers={"Idempotency-Key": f"kill-{key}"}
                    )
                except httpx.TransportError:
                    lost += 1
                    continue
                response.raise_for_status()
                made[key].add(response.json()["id"])

        async def killer() -> None:
            for _ in range(kills):
                await asyncio.sleep(1.0)
                web.kill()
                web.start()
            while not await asyncio.to_thread(answers, web.url):
                await asyncio.sleep(0.05)
            is_over.set()

        await asyncio.gather(killer(), *(client(key) for key in made))
        names = []
        after: dict[str, str] = {}
        while True:
            page = (await http.get("/v1/mixtures", params={"limit": "200", **after})).json()
            names += [one["name"] for one in page["items"] if (one["name"] or "").startswith("mixture-")]
            if page["next"] is None:
                break
            after = {"after": page["next"]}
    answered = [ids for ids in made.values() if len(ids) != 1]
    return {
        "keys": keys,
        "kills": kills,
        "answers_lost": lost,
        "keys_with_two_answers": len(answered),
        "resources": len(names),
    }


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=sorted(GOAL_MS), default="sqlite")
    parser.add_argument("--workers", type=int, default=2, help="web processes")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each of the two loads")
    parser.add_argument("--runs", type=int, default=Sizes.runs)
    parser.add_argument("--json", type=Path, help="where to write the result, under the database's name")
    arguments = parser.parse_args()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        url = stack.enter_context(database_url(arguments.database, directory))
        settings = Settings(data_directory=directory, database_url=url, token=TOKEN)
        upgrade(url)
        database = Database(url)
        stored = fill(database, Sizes(runs=arguments.runs))
        if arguments.database == "postgresql":
            with database.write() as session:
                session.execute(text("ANALYZE"))  # as autovacuum would have within a minute
        database.close()
        result = measure(settings, stored, arguments.workers, arguments.seconds)
    result = {"machine": _machine(), "store": asdict(Sizes(runs=arguments.runs)), **result}
    result["goal_p99_ms"] = GOAL_MS[arguments.database]
    _print(result)
    if arguments.json:
        before = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        arguments.json.write_text(json.dumps({**before, arguments.database: result}, indent=2) + "\n")


def measure(settings: Settings, stored: Stored, workers: int, seconds: float) -> dict[str, Any]:
    """Both loads and the scrapes beside a writer, then the kills."""
    wanted = requests(stored)
    with served(settings, workers) as web:
        with writing(settings):
            # imports, caches, connections
            measured(web, wanted, Load(CLIENTS, min(5.0, seconds), 0.0))
            once_a_second = measured(web, wanted, Load(CLIENTS, seconds, 1.0))
            at_once = measured(web, wanted, Load(CLIENTS, seconds, 0.0))
            scrapes = measured(web, {"GET /metrics": ["/metrics"]}, Load(1, 5.0, 0.5))
        kills = asyncio.run(repeat_through_kills(web))
    return {
        "web_processes": workers,
        "once_a_second": once_a_second,
        "without_pause": at_once,
        "scrapes": scrapes["all"],
        "kills": kills,
    }


def _machine() -> dict[str, Any]:
    return {
        "cpus": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "load_average_1_min": round(os.getloadavg()[0], 1),
        "real_time": os.sched_getscheduler(0) in (os.SCHED_RR, os.SCHED_FIFO),
    }


def _print(result: dict[str, Any]) -> None:
    for name in ("once_a_second", "without_pause"):
        found = result[name]
        rate, cpu = found["requests_per_second"], found["web_cpu_ms_per_request"]
        own = found["client_cpu_ms_per_request"]
        print(
            f"{name}: {rate} requests/s, {cpu} ms of CPU each (client {own}), {found['web_cores_used']} cores"
        )
        print(f"  statuses {found['statuses']}")
        for endpoint, row in {"all": found["all"], **found["endpoints"]}.items():
            print(f"  {endpoint:30} {row['requests']:6} p50 {row['p50_ms']:8.1f} p99 {row['p99_ms']:8.1f} ms")
    print("scrapes:", result["scrapes"])
    print("kills:", result["kills"])


if __name__ == "__main__":
    main()
