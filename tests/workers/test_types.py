"""What SQL makes of JSON, on both databases."""

from sqlalchemy import func, select

from store.engine import Database
from store.tables import Optimization, Run, big_integer
from tests.workers.conftest import new_revision


def test_whole_numbers_in_documents_may_be_of_64_bits(database: Database) -> None:
    tokens = 5_000_000_000
    with database.write() as session:
        revision = new_revision(session)
        asked = Optimization(
            revision_id=revision.id, method="olmix", seed=0, settings={"proxy": {"tokens": tokens}}
        )
        untrained = Optimization(revision_id=revision.id, method="uniform", seed=0, settings={"proxy": None})
        session.add_all([asked, untrained])
        session.flush()
        nested = big_integer(Optimization.settings["proxy"]["tokens"])
        found = dict(session.execute(select(Optimization.method, nested)).all())
        assert found == {"olmix": tokens, "uniform": None}
        run = Run(position=0, seed=0, weights={}, result={"tokens": tokens})
        session.add(run)
        session.flush()
        query = select(func.coalesce(Run.tokens, big_integer(Run.result["tokens"])))
        assert session.scalar(query) == tokens
