"""The finished runs of a revision and its ancestors, and which of them can be compared with runs to come.

Only like is compared with like: the same tokenizer, the same proxy trained on as many tokens, and of every task the
same file. A domain's held-out slice follows from its text alone, so it is the same task wherever the text is the
same, under whatever name.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from mixing.change.lineage import RevisionNode
from mixing.domains import HELD_OUT_PREFIX
from mixing.reuse.plan import PastRun
from mixing.runs.evidence import RunEvidence
from proxy_models.text.task_file import ACCURACY, further_series
from store import jobs
from store.documents import MODEL, TRAINING, Measurements, SwarmDocument, TaskDocument
from store.revisions.changes import lineage_nodes, node_id, same_held_out
from store.tables import Job, Optimization, Revision, Run


@dataclass(frozen=True)
class FinishedRun:
    """A proxy run that succeeded, with what it was trained for and how long a worker was busy with it."""

    run: Run
    optimization: Optimization
    swarm: SwarmDocument
    seconds: float


def has_finished_runs(session: Session, revisions: Sequence[Revision]) -> bool:
    """Whether `finished_runs` has any."""
    return session.scalar(_finished(revisions, Run.id).limit(1)) is not None


def finished_runs(session: Session, revisions: Sequence[Revision]) -> list[FinishedRun]:
    """Every proxy run that succeeded for an optimization of one of these revisions, oldest first."""
    query = _finished(revisions, Run, Optimization, Job.busy_seconds).order_by(
        Optimization.created_at, Optimization.id, Run.position
    )
    swarms: dict[str, SwarmDocument] = {}
    found = []
    for run, optimization, seconds in session.execute(query):
        if optimization.id not in swarms:
            swarms[optimization.id] = SwarmDocument.of(optimization)
        found.append(FinishedRun(run, optimization, swarms[optimization.id], seconds))
    return found


def _finished(revisions: Sequence[Revision], *columns: Any) -> Select[*tuple[Any, ...]]:
    return (
        select(*columns)
        .select_from(Run)
        .join(Job, Job.subject == Run.id)
        .join(Optimization, Optimization.id == Job.owner)
        .where(
            Job.kind == jobs.PROXY_RUN,
            Job.state == jobs.SUCCEEDED,
            Run.result.is_not(None),
            Optimization.revision_id.in_([revision.id for revision in revisions]),
        )
    )


@dataclass(frozen=True)
class Comparison:
    """Holds finished runs against what runs to come will be trained and measured with, over one lineage.

    Attributes:
        nodes: the lineage, the newest revision first.
        tokenizer: of the newest.
        asked: the runs to come, as stored: their proxy, their tasks, and where they are trained.
    """

    nodes: Sequence[RevisionNode]
    tokenizer: str | None
    asked: SwarmDocument

    @classmethod
    def of(cls, session: Session, revision: Revision, asked: SwarmDocument) -> "Comparison":
        """With the runs that ``asked`` trains on a revision that is counted."""
        return cls(lineage_nodes(session, revision), revision.tokenizer_path, asked)

    def past_run(self, finished: FinishedRun) -> PastRun:
        """What a plan reads of a run."""
        run, optimization = finished.run, finished.optimization
        return PastRun(
            id=run.id,
            revision=node_id(optimization.revision),
            mixture=run.weights,
            tasks=tuple(sorted(self.evidence(finished).metrics)),
            unlike=self.unlike(finished),
            seed=run.seed,
        )

    def evidence(self, finished: FinishedRun) -> RunEvidence:
        """A run over its own revision's domains, its metrics under the names that their tasks have now."""
        measured, names = Measurements.of(finished.run.result), self._task_names(finished)

        def renamed(values: Mapping[str, float]) -> dict[str, float]:
            return {new: values[old] for old, news in names.items() if old in values for new in news}

        return RunEvidence(
            id=finished.run.id,
            mixture=measured.realised_weights or finished.run.weights,
            requested=finished.run.weights,
            metrics=renamed(measured.metrics),
            noise=renamed(measured.noise),
            seed=finished.run.seed,
        )

    def unlike(self, finished: FinishedRun) -> str | None:
        """Why a run cannot be compared with those to come, or None."""
        was, will = _elsewhere(finished.swarm), _elsewhere(self.asked)
        if was != will:
            return f"its proxy differs: {was} instead of {will}"
        if finished.optimization.revision.tokenizer_path != self.tokenizer:
            return "it read the tokens of another tokenizer"
        trained = finished.swarm.proxy_of(finished.run.round)
        proxy = trained and replace(trained, tokens=finished.run.requested_tokens)
        for name in (*MODEL, *TRAINING):
            was, will = getattr(proxy, name, None), getattr(self.asked.proxy, name, None)
            if was != will:
                return f"its proxy differs: {name} {_said(was)} instead of {_said(will)}"
        return self._other_tasks(finished)

    def _other_tasks(self, finished: FinishedRun) -> str | None:
        """Said where a run measured none of the tasks that are asked for, because their files are others now."""
        before = {task.name: task for task in finished.swarm.tasks}
        shared = [task for task in self.asked.tasks if task.name in before]
        other = [
            task.name for task in shared if _series_of(before[task.name], task, finished.optimization) is None
        ]
        if not other or len(other) < len(shared):
            return None
        return (
            f"it was measured on another file than task {other[0]!r} has now, or its choices ranked otherwise"
        )

    def _task_names(self, finished: FinishedRun) -> dict[str, tuple[str, ...]]:
        """Task as measured -> the tasks it is now."""
        held_out = same_held_out(self.nodes, node_id(finished.optimization.revision))
        names = {
            f"{HELD_OUT_PREFIX}{old}": tuple(f"{HELD_OUT_PREFIX}{new}" for new in news)
            for old, news in held_out.items()
        }
        before = {task.name: task for task in finished.swarm.tasks}
        for task in self.asked.tasks:
            older = before.get(task.name)
            if older is not None and (series := _series_of(older, task, finished.optimization)):
                names[series] = (task.name,)
        return names


def _elsewhere(swarm: SwarmDocument) -> str:
    """What was said of runs that are trained elsewhere; one thing for all that are trained here."""
    if not swarm.is_elsewhere:
        return "trained here"
    length = "" if swarm.run_tokens is None else f" of {swarm.run_tokens} tokens"
    return f"{swarm.proxy_name or 'a model nobody named'}{length}, trained elsewhere"


def _series_of(before: TaskDocument, now: TaskDocument, optimization: Optimization) -> str | None:
    """What the older run measured that the task is now; None where it measured nothing of the kind.

    Of a task with choices either metric was measured, so it may be the other one now; accuracies are one metric only
    where the choices were ranked alike.
    """
    if not _has_same_examples(before, now, optimization):
        return None
    if now.metric == ACCURACY and before.normalization != now.normalization:
        return None
    return now.name if before.metric == now.metric else further_series(now.name, now.scored)


def _has_same_examples(before: TaskDocument, now: TaskDocument, optimization: Optimization) -> bool:
    """Whether two tasks are the same examples: by digest, or of a file unchanged since the older was asked for."""
    if not before.path or not now.path:
        return before.path == now.path  # measured elsewhere, and told by the name alone
    if before.digest is not None:
        return before.digest == now.digest
    if before.path != now.path:
        return False
    try:
        return Path(now.path).stat().st_mtime < optimization.created_at
    except OSError:
        return False


def _said(value: object) -> str:
    if isinstance(value, Mapping):
        return json.dumps(value, sort_keys=True)
    return "the default" if value is None else str(value)


def mean_seconds(runs: Sequence[FinishedRun]) -> float | None:
    """What a run kept a worker busy for, on average; None without any."""
    return sum(one.seconds for one in runs) / len(runs) if runs else None
