"""What is measured of a run while it is trained: rows of `Metric`, one a step and name.

Training that goes on from a checkpoint measures some steps a second time: of one step the later value counts.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final

from sqlalchemy import func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from mixing.domains import HELD_OUT_PREFIX
from store.documents import LaunchDocument
from store.tables import Metric, Revision

TRAINING_PREFIX: Final = "training/"
"""Of what a trainer tells of itself (``training/loss``), which is none of the tasks."""
RANKED: Final = ("bpb", "accuracy")
"""What is measured of a task with choices, one of them under its own name."""
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


def latest_metrics(session: Session, run_id: str) -> dict[str, Metric]:
    """Of each name the value at its last step."""
    last = (
        select(Metric.task, func.max(Metric.step).label("step"))
        .where(Metric.run_id == run_id)
        .group_by(Metric.task)
        .subquery()
    )
    query = (
        select(Metric)
        .join(last, (Metric.task == last.c.task) & (Metric.step == last.c.step))
        .where(Metric.run_id == run_id)
    )
    return {row.task: row for row in session.scalars(query)}


def measured_names(launch: LaunchDocument, revision: Revision) -> list[str]:
    """What can be measured of a launch: its tasks, either metric of those with choices, domains' held-out slices."""
    tasks = [name for task in launch.tasks for name in (task.name, *(f"{task.name}/{of}" for of in RANKED))]
    return [*tasks, *(HELD_OUT_PREFIX + row.name for row in revision.domains)]
