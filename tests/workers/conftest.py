import json
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from mixing.change.revision import Changes
from mixing.document import to_document
from store import jobs
from store.documents import VERSION, EngineDocument, LaunchDocument
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from store.tables import Base, DomainRow, DomainSet, Job, Launch, MixtureRow, Revision, Run
from workers.jobs import kind_named

Until = Callable[..., None]


def new_revision(session: Session, name: str = "pool") -> Revision:
    """Revision 1 of a new domain set, still without domains and jobs."""
    domain_set = DomainSet(name=name)
    session.add(domain_set)
    session.flush()
    revision = Revision(
        domain_set_id=domain_set.id,
        number=1,
        tokenizer={"vocabulary_size": 512},
        held_out_fraction=0.1,
        content_hash="0",
        changes=Changes().to_dict(),
    )
    session.add(revision)
    session.flush()
    return revision


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "postgresql":
        return request.getfixturevalue("postgres_url")
    return f"sqlite:///{tmp_path / 'mixwright.db'}"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    """Empty tables on SQLite and on PostgreSQL."""
    database = Database(database_url)
    Base.metadata.drop_all(database.engine)
    Base.metadata.create_all(database.engine)
    yield database
    database.close()


@pytest.fixture
def sqlite(tmp_path: Path) -> Iterator[Database]:
    """Empty tables on SQLite, migrated as workers want it, for what does not depend on the database."""
    database = Database(f"sqlite:///{tmp_path / 'mixwright.db'}")
    upgrade(str(database.engine.url))
    yield database
    database.close()


@pytest.fixture
def until() -> Until:
    """Wait for a condition; the deadline only says when to give up."""

    def wait(condition: Callable[[], object], deadline: float = 240.0, what: str = "the condition") -> None:
        give_up = time.monotonic() + deadline
        while not condition():
            assert time.monotonic() < give_up, f"{what} did not come true within {deadline} s"
            Event().wait(0.02)  # leaves the core to what is waited for

    return wait


def write_texts(path: Path, texts: list[str]) -> str:
    """A file of JSON lines; answers its path."""
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(path)


def library_texts(directory: Path) -> dict[str, str]:
    """Two domains of the standard library's text, each a file of ``directory``."""
    library = Path(sysconfig.get_paths()["stdlib"])
    return {
        name: write_texts(
            directory / f"{name}.jsonl", [file.read_text() for file in sorted((library / name).glob("*.py"))]
        )
        for name in ("email", "json")
    }


def prepare(
    database: Database,
    settings: Settings,
    files: dict[str, str],
    readings: dict[str, dict[str, object]] | None = None,
    **said: str | None,
) -> str:
    """A counted revision of domains of a file each, as workers make it without the processes between; its id.

    Counted in the order of ``files``; ``said`` are the domain set's name and the path of its tokenizer.
    """
    with database.write() as session:
        revision = new_revision(session, said.get("name") or "pool")
        revision.tokenizer_path = said.get("tokenizer")
        session.add_all(
            DomainRow(revision_id=revision.id, name=name, files=[path], reading=(readings or {}).get(name))
            for name, path in files.items()
        )
        session.add(jobs.new_job(jobs.PREPARE_TOKENIZER, revision.id, revision.id))
        session.flush()
        for kind in (jobs.PREPARE_TOKENIZER, jobs.PREPARE_DOMAIN, jobs.COMPARE_DOMAINS):
            queued = session.scalars(select(Job).where(Job.kind == kind, Job.state == jobs.QUEUED)).all()
            assert len(queued) == (len(files) if kind == jobs.PREPARE_DOMAIN else 1)
            for job in queued:
                spec = kind_named(kind).describe(session, job, settings)
                kind_named(kind).store(session, job, kind_named(kind).execute(spec, lambda progress: None))
                job.state = jobs.SUCCEEDED
                session.flush()
        return revision.id


def add_training(
    database: Database,
    revision_id: str,
    launcher: str,
    engine: EngineDocument | None,
    tokens: int = 20_000,
    kind: str = jobs.FULL_RUN,
) -> str:
    """A launch of the built-in trainer; answers its run."""
    with database.write() as session:
        mixture = MixtureRow(revision_id=revision_id, kind="manual", weights={"email": 0.4, "json": 0.6})
        session.add(mixture)
        session.flush()
        document = LaunchDocument(
            version=VERSION,
            launcher=launcher,
            engine=engine,
            size="nano-0.1M",
            tokens=tokens,
            sequence_length=64,
            batch_rows=4,
            evaluations=1,
        )
        launch = Launch(mixture_id=mixture.id, settings=to_document(document))
        session.add(launch)
        session.flush()
        run = Run(launch_id=launch.id, position=0, tokens=tokens, seed=0, weights=mixture.weights)
        session.add(run)
        session.flush()
        session.add(jobs.new_job(kind, run.id, launch.id))
        return run.id
