"""What the pipeline costs an optimization of many runs: ``python -m benchmarks.pipeline``.

One optimization under way, half of its runs done. Measured are the tick of a supervisor, and what the transaction
that ends one run spends on going on (`workers.pipeline.settle`), in seconds (median of `TIMES`).
There are ``--runs`` (10,000); without ``--database`` it is SQLite in a temporary folder; a PostgreSQL one has to be
empty.
"""

import json
import statistics
import tempfile
import time
from argparse import ArgumentParser
from collections.abc import Callable
from pathlib import Path

from sqlalchemy import select

from benchmarks.api_store import Sizes, fill
from store import jobs
from store.engine import Database
from store.schema import upgrade
from store.tables import Job
from workers.pipeline import settle, tick

TIMES = 20


def main() -> None:
    """Fill the store, measure, and print one JSON object."""
    parser = ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--database")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = options.database or f"sqlite:///{Path(folder) / 'mixwright.db'}"
        upgrade(url)
        database = Database(url)
        fill(database, Sizes(runs=options.runs, optimizations=1, domain_sets=1))
        print(
            json.dumps({"database": database.engine.dialect.name, "runs": options.runs, **measure(database)})
        )
        database.close()


def measure(database: Database) -> dict[str, float]:
    """Median seconds of a tick, and of going on after one finished run."""
    with database.read() as session:
        done = session.scalars(select(Job).where(Job.kind == jobs.PROXY_RUN).limit(1)).one()

    def after_a_run() -> None:
        with database.write() as session:
            settle(session, done)

    return {"tick_seconds": _median(lambda: tick(database)), "settle_seconds": _median(after_a_run)}


def _median(measured: Callable[[], object]) -> float:
    measured()
    seconds = []
    for _ in range(TIMES):
        start = time.perf_counter()
        measured()
        seconds.append(time.perf_counter() - start)
    return round(statistics.median(seconds), 5)


if __name__ == "__main__":
    main()
