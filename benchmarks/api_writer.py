"""Writes as a supervisor does, without training: ``python -m benchmarks.api_writer``, until its input ends.

Every 0.1 s a claim, two heartbeats and a finish; twice a second the reaper and the pipeline. A supervisor whose runs
take seconds writes less often.
"""

import sys
import threading

from sqlalchemy.orm import Session

from store import jobs
from store.engine import Database
from store.settings import Settings
from store.tables import Job, Run
from workers.claims.claim import claim, finish, heartbeat
from workers.pipeline import tick


def main() -> None:
    """Write until standard input ends; jobs that ran out are queued again."""
    database = Database(Settings().resolved_database_url)
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    turn = 0
    while not over.wait(0.1):
        turn += 1
        if turn % 5 == 0:
            tick(database)
        claimed = claim(database, "benchmark", 30.0)
        if claimed is None:
            _queue_some_again(database)
            continue
        for done in (1000, 2000):
            heartbeat(database, {claimed: {"done": done, "total": 524_288, "unit": "tokens"}})
        finish(database, claimed, _store)
    database.close()


def _store(session: Session, job: Job) -> None:
    run = session.get(Run, job.subject)
    if run is not None:
        run.result = {"final": {"task-00": 2.0}, "tokens": 524_288, "seconds": 8.0}


def _queue_some_again(database: Database) -> None:
    with database.write() as session:
        some = session.query(Job).filter_by(kind=jobs.PROXY_RUN, state=jobs.SUCCEEDED).limit(100)
        for job in some:
            job.state, job.finished_at = jobs.QUEUED, None


if __name__ == "__main__":
    main()
