"""Whoever wants to hear of a launch's end hears of it: signed, again where it was not taken, and not for ever."""

import base64
import hashlib
import hmac
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from sqlalchemy import select

from store import jobs
from store.engine import Database
from store.launchers.callbacks import signature
from store.settings import Settings
from store.tables import Job, Launch, MixtureRow, Run
from tests.workers.conftest import new_revision
from workers.claims.claim import Claim, claim, fail
from workers.claims.failures import Failure
from workers.execution.child_handle import Child
from workers.execution.execute import Worker, run_claims
from workers.pipeline import settle

SECRET = "a-secret-for-tests-only"


class Hook(ThreadingHTTPServer):
    """Answers what it is told to, and keeps what it was sent."""

    def __init__(self) -> None:
        self.answers: list[int] = []
        self.taken: list[tuple[dict[str, str], bytes]] = []
        hook = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                hook.taken.append(({k.lower(): v for k, v in self.headers.items()}, body))
                self.send_response(hook.answers.pop(0) if hook.answers else 204)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, format: str, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


@pytest.fixture
def hook() -> Iterator[Hook]:
    with Hook() as hook:
        thread = threading.Thread(target=hook.serve_forever)
        thread.start()
        yield hook
        hook.shutdown()
        thread.join()


@pytest.fixture
def child() -> Iterator[Child]:
    child = Child()
    yield child
    child.kill()


def settings_for(hook: Hook, origins: str | None = None) -> Settings:
    own = f"http://127.0.0.1:{hook.server_port}"
    return Settings(callback_secret=SECRET, callback_origins=origins or own)


def add_launch(database: Database, hook: Hook) -> str:
    with database.write() as session:
        revision = new_revision(session)
        mixture = MixtureRow(revision_id=revision.id, kind="manual", weights={"books": 1.0})
        session.add(mixture)
        session.flush()
        url = f"http://127.0.0.1:{hook.server_port}/hook?of=launches"
        settings = {"launcher": "theirs", "tokens": 1000, "callback": url}
        launch = Launch(mixture_id=mixture.id, settings=settings)
        session.add(launch)
        session.flush()
        run = Run(launch_id=launch.id, position=0, seed=0, weights={}, result={"final": {"arc": 0.5}})
        session.add(run)
        session.flush()
        session.add(jobs.new_job(jobs.EXTERNAL_RUN, run.id, launch.id))
        return launch.id


def end_launch(database: Database) -> None:
    held = claim(database, "tester", 30.0, [jobs.EXTERNAL_RUN])
    assert held is not None
    fail(database, held, Failure("launcher_failed", "ended with status 3", retryable=False), settle)


def callbacks(database: Database) -> list[Job]:
    with database.read() as session:
        return list(session.scalars(select(Job).where(Job.kind == jobs.CALLBACK).order_by(Job.id)))


def deliver(database: Database, settings: Settings, child: Child) -> None:
    with database.write() as session:
        for job in session.scalars(select(Job).where(Job.kind == jobs.CALLBACK, Job.state == jobs.QUEUED)):
            job.available_at = 0.0
    held: Claim | None = claim(database, "tester", 30.0, [jobs.CALLBACK])
    assert held is not None
    run_claims(Worker(database, settings, threading.Event()), [held], child)


def test_the_end_is_told_signed_under_one_id_until_it_is_taken(
    sqlite: Database, hook: Hook, child: Child
) -> None:
    launch = add_launch(sqlite, hook)
    end_launch(sqlite)
    hook.answers = [500, 302]
    for state in (jobs.QUEUED, jobs.QUEUED, jobs.SUCCEEDED):
        deliver(sqlite, settings_for(hook), child)
        assert [job.state for job in callbacks(sqlite)] == [state]
    assert len(hook.taken) == 3  # no redirect was followed
    for headers, body in hook.taken:
        signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + body
        expected = base64.b64encode(hmac.new(SECRET.encode(), signed, hashlib.sha256).digest()).decode()
        assert headers["webhook-signature"] == f"v1,{expected}"
    assert len({headers["webhook-id"] for headers, _ in hook.taken}) == 1
    told = json.loads(hook.taken[-1][1])
    assert told["type"] == "launch.ended"
    assert told["data"]["launch_id"] == launch
    assert (told["data"]["state"], told["data"]["failure"]["code"]) == (jobs.FAILED, "launcher_failed")
    assert told["data"]["metrics"] == {"arc": 0.5}


def test_a_launch_that_ends_again_is_told_again(sqlite: Database, hook: Hook, child: Child) -> None:
    launch = add_launch(sqlite, hook)
    for _ in range(2):
        end_launch(sqlite)
        deliver(sqlite, settings_for(hook), child)
        with sqlite.write() as session:
            jobs.requeue_jobs(session, launch)
    assert len({headers["webhook-id"] for headers, _ in hook.taken}) == 2


def test_what_nobody_takes_is_given_up(sqlite: Database, hook: Hook, child: Child) -> None:
    add_launch(sqlite, hook)
    end_launch(sqlite)
    hook.answers = [503] * 100
    while callbacks(sqlite)[0].state == jobs.QUEUED:
        deliver(sqlite, settings_for(hook), child)
    (job,) = callbacks(sqlite)
    assert (job.state, job.failure_code, job.attempt) == (jobs.FAILED, "callback_failed", 8)
    assert len(hook.taken) == 8


def test_nobody_is_told_whom_the_operator_allows_no_more(sqlite: Database, hook: Hook, child: Child) -> None:
    add_launch(sqlite, hook)
    end_launch(sqlite)
    deliver(sqlite, settings_for(hook, "https://hooks.example.com"), child)
    (job,) = callbacks(sqlite)
    assert (job.state, job.failure_code) == (jobs.FAILED, "callback_not_allowed")
    assert hook.taken == []


def test_the_signature_is_that_of_standard_webhooks() -> None:
    """The example of the specification's reference libraries."""
    body = b'{"test": 2432232314}'
    secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
    expected = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
    assert signature(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, body.decode()) == expected
