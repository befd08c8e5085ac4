"""What must hold of the store when a storm is over, asked in SQL; each query counts what must not be there."""

import json
from pathlib import Path

from sqlalchemy import text

from store.engine import Database
from store.tables import ATTEMPTS
from workers.claims.claim import LOST_ALLOWED

NEVER = {
    "lost: jobs that did not succeed": "SELECT count(*) FROM jobs WHERE state <> 'succeeded'",
    "lost: runs without a result": """
        SELECT count(*) FROM runs WHERE result IS NULL OR CAST(result AS TEXT) = 'null'""",
    "lost: optimizations that did not succeed": "SELECT count(*) FROM optimizations WHERE state <> 'succeeded'",
    "lost: runs without exactly one job": """
        SELECT count(*) FROM runs WHERE 1 <> (
            SELECT count(*) FROM jobs WHERE jobs.kind = 'proxy_run' AND jobs.subject = runs.id)""",
    "twice: jobs whose finish was not accepted exactly once": """
        SELECT count(*) FROM jobs WHERE 1 <> (
            SELECT count(*) FROM attempts WHERE attempts.job_id = jobs.id AND attempts.outcome = 'succeeded')""",
    "twice: attempts that ended after their job's finish was accepted": """
        SELECT count(*) FROM attempts AS late JOIN attempts AS accepted ON accepted.job_id = late.job_id
        WHERE accepted.outcome = 'succeeded' AND late.id <> accepted.id AND late.ended_at > accepted.ended_at""",
    "twice: finishes accepted of another attempt than the job's last": """
        SELECT count(*) FROM jobs JOIN attempts ON attempts.job_id = jobs.id
        WHERE attempts.outcome = 'succeeded' AND attempts.number <> jobs.attempt""",
    "twice: places of a swarm with more than one run": """
        SELECT count(*) FROM (
            SELECT 1 FROM runs GROUP BY swarm_id, position HAVING count(*) > 1) AS places""",
    "twice: numbers of measurements a run may have, beyond one": """
        SELECT count(DISTINCT measured) - 1 FROM (
            SELECT (SELECT count(*) FROM metrics WHERE metrics.run_id = runs.id) AS measured FROM runs) AS runs""",
    "twice: mixtures beyond one of a kind for an optimization": """
        SELECT count(*) FROM (
            SELECT 1 FROM mixtures WHERE optimization_id IS NOT NULL
            GROUP BY optimization_id, kind HAVING count(*) > 1) AS kinds""",
    "stuck: jobs that wait or are held": """
        SELECT count(*) FROM jobs WHERE state IN ('queued', 'claimed', 'running')""",
    "stuck: leases left": "SELECT count(*) FROM jobs WHERE lease_token IS NOT NULL OR lease_expires_at IS NOT NULL",
    "attempts: jobs over their cap": f"""
        SELECT count(*) FROM jobs WHERE attempt > max_attempts
        OR max_attempts > {ATTEMPTS + LOST_ALLOWED - 1}""",
}


def violations(database: Database) -> dict[str, int]:
    """How many there are of each thing that must not be; all zero when all is well."""
    with database.read() as session:
        return {name: int(session.scalar(text(query)) or 0) for name, query in NEVER.items()}


def differing_files(database: Database, artifacts: Path) -> int:
    """Runs whose files do not say what the store says: a half-written or foreign result would."""
    with database.read() as session:
        rows = session.execute(text("SELECT id, result FROM runs")).all()
    differing = 0
    for run_id, stored in rows:
        result = json.loads(stored) if isinstance(stored, str) else stored
        try:
            written = json.loads((artifacts / "runs" / run_id / "result.json").read_text(encoding="utf-8"))
            differing += written["result"]["final"] != result["final"]
        except (OSError, ValueError, KeyError, TypeError):
            differing += 1
    return differing


def attempts_by_outcome(database: Database) -> dict[str, int]:
    """How the attempts ended, and why those did that were tried again."""
    query = """
        SELECT outcome, failure_code, reaped, count(*) FROM attempts
        GROUP BY outcome, failure_code, reaped ORDER BY outcome, failure_code, reaped"""
    with database.read() as session:
        return {
            " ".join(filter(None, (outcome, code, "(lease expired)" if reaped else None))): count
            for outcome, code, reaped, count in session.execute(text(query)).all()
        }


def most_attempts(database: Database) -> dict[str, int]:
    """The most workers any job has lost, and the most attempts it had."""
    query = f"SELECT max(max_attempts) - {ATTEMPTS}, max(attempt) FROM jobs"
    with database.read() as session:
        lost, attempts = session.execute(text(query)).one()
    return {"workers_lost_by_one_job": lost, "attempts_of_one_job": attempts}
