"""The workers' jobs done in the test's own process: what is queued, one after another, until nothing is."""

import json

from sqlalchemy.orm import Session

from store.engine import Database, database_for
from store.settings import Settings
from store.tables import Job
from workers.claims.claim import Claim, claim, fail, finish
from workers.claims.failures import Failure
from workers.jobs import kind_named
from workers.pipeline import settle, tick

LEASE_SECONDS = 600.0


def work(settings: Settings) -> list[str]:
    """Do every job there is, and those that follow from them; answers their kinds in order."""
    done = []
    with database_for(settings.resolved_database_url) as database:
        while True:
            tick(database)
            claimed = claim(database, "tester", LEASE_SECONDS)
            if claimed is None:
                return done
            _do(database, claimed, settings)
            done.append(claimed.kind)


def _do(database: Database, claimed: Claim, settings: Settings) -> None:
    kind = kind_named(claimed.kind)
    try:
        with database.read() as session:
            spec = kind.describe(session, session.get_one(Job, claimed.job_id), settings)
        result = json.loads(json.dumps(kind.execute(json.loads(json.dumps(spec)), lambda _: None)))
    except Exception as error:
        fail(database, claimed, Failure.of(error), settle)
        return

    def store(session: Session, job: Job) -> None:
        kind.store(session, job, result)
        settle(session, job)

    finish(database, claimed, store)
