"""What is measured of a run while it is trained: rows of `Metric`, one a step and name.

Training that goes on from a checkpoint measures some steps a second time: of one step the later value counts.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from store.tables import Metric

TRAINING_PREFIX: Final = "training/"
"""Of what a trainer tells of itself (``training/loss``), which is none of the tasks."""
_ROWS = 500
"""A statement; SQLite has 32,766 values for one."""


def keep_metrics(session: Session, run_id: str, metrics: Iterable[Mapping[str, Any]]) -> None:
    """Store ``{"step", "tokens", "task", "value"}``, whether or not some of them are there already."""
    latest = list({(one["step"], one["task"]): one for one in metrics}.values())
    insert = (postgresql if session.get_bind().dialect.name == "postgresql" else sqlite).insert
    for start in range(0, len(latest), _ROWS):
        rows = latest[start : start + _ROWS]
        statement = insert(Metric).values([{"run_id": run_id, **row} for row in rows])
        new = {"tokens": statement.excluded.tokens, "value": statement.excluded.value}
        session.execute(statement.on_conflict_do_update(index_elements=["run_id", "step", "task"], set_=new))
