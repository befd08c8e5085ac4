"""Swarms as evidence, whoever sampled and trained them: what they measured, what was trained, and their runs.

A swarm was sampled for an optimization and trained here or elsewhere, or its runs were brought. Runs of several
swarms are evidence together where the same was trained: a metric of another model lies on another level.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session, joinedload

from mixing.document import to_document
from mixing.runs.evidence import RunEvidence
from store import jobs
from store.documents import (
    MODEL,
    TRAINING,
    AnchorsDocument,
    BroughtDocument,
    Measurements,
    OptimizationDocument,
    SwarmDocument,
)
from store.problems import NotFound
from store.revisions.changes import node_id
from store.revisions.past_runs import Comparison, FinishedRun
from store.tables import Job, Optimization, Revision, Run, Swarm

HERE, ELSEWHERE, BROUGHT = "here", "elsewhere", "brought"


@dataclass(frozen=True)
class GivenSwarm:
    """A swarm and its runs, each with the job that says how it stands.

    Attributes:
        swarm: its row.
        revision: that its mixtures are over.
        optimization: it was sampled for; None where its runs were brought.
        runs: in order.
        with_anchors: whether the runs of other sizes and lengths that were trained beside it count too.
    """

    swarm: Swarm
    revision: Revision
    optimization: Optimization | None
    runs: Sequence[tuple[Run, Job]]
    with_anchors: bool = False

    @cached_property
    def document(self) -> SwarmDocument | None:
        """What it was sampled for."""
        return None if self.optimization is None else SwarmDocument.of(self.optimization)

    @cached_property
    def brought(self) -> BroughtDocument:
        """What was said of it."""
        return BroughtDocument.of(self.swarm)

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.brought.name or self.swarm.id

    @property
    def finished(self) -> list[tuple[Run, Job]]:
        """The runs that something was measured on."""
        done = [(run, job) for run, job in self.runs if job.state == jobs.SUCCEEDED and run.result]
        return [(run, job) for run, job in done if self.with_anchors or self._anchors(run) is None]

    def _anchors(self, run: Run) -> AnchorsDocument | None:
        return None if self.document is None else self.document.anchors_of(run.round)

    def parameters(self, run: Run) -> int | None:
        """Of a run's model, embeddings and head not counted; None where nobody said."""
        if self.document is None:
            return self.brought.parameters
        anchors = self._anchors(run)
        counted = Measurements.of(run.result).non_embedding_parameters
        return counted or (self.document.run_parameters if anchors is None else anchors.parameters)

    @property
    def tokenizer(self) -> str | None:
        """What its runs read; None where nobody said."""
        is_here = self.document is not None and self.document.proxy is not None
        return self.revision.tokenizer_path if is_here else self.brought.tokenizer

    @cached_property
    def metrics(self) -> tuple[str, ...]:
        """Everything that was measured on some run, in order."""
        return tuple(sorted({name for run, _ in self.finished for name in Measurements.of(run.result).final}))

    @cached_property
    def proxy(self) -> str | None:
        """What was trained, told so that equal ones are the same; None where nobody said."""
        document = self.document
        if document is None:
            return self.brought.proxy_name
        if document.proxy is None:
            return document.proxy_name
        chosen = {name: getattr(document.proxy, name) for name in (*MODEL, *TRAINING)}
        told = {name: value for name, value in chosen.items() if value is not None}
        return f"{json.dumps(to_document(told), sort_keys=True)}, tokenizer {self.revision.tokenizer_path}"

    @property
    def whole_run(self) -> int | None:
        """Tokens of its longest run; None where one does not say."""
        if self.document is not None:
            return self.document.whole_run
        counts = [run.tokens for run, _ in self.runs]
        return None if not counts or None in counts else max(filter(None, counts))

    def evidence(
        self, tasks: Sequence[str], whole_run: int | None, prefix: str = "", whole_model: int | None = None
    ) -> list[RunEvidence]:
        """The finished runs over their own revision's domains.

        Args:
            tasks: that count of runs which were brought; what else they measured has no direction.
            whole_run: tokens that count as one.
            prefix: of their names, where several swarms are together.
            whole_model: parameters that count as one; None where all have as many.
        """
        found = [self._evidence(run, tasks, whole_run, prefix) for run, _ in self.finished]
        if whole_model is None:
            return found
        sizes = [self.parameters(run) or whole_model for run, _ in self.finished]
        return [replace(run, size=size / whole_model) for run, size in zip(found, sizes, strict=True)]

    def _evidence(self, run: Run, tasks: Sequence[str], whole_run: int | None, prefix: str) -> RunEvidence:
        measured = Measurements.of(run.result)
        asked = run.requested_tokens
        is_here = self.document is not None and self.document.proxy is not None
        return RunEvidence(
            id=run.id if run.name is None else f"{prefix}{run.name}",
            mixture=measured.realised_weights or run.weights,
            requested=run.weights if is_here else None,
            metrics={name: value for name, value in measured.final.items() if is_here or name in tasks},
            noise=measured.noise,
            seed=None if is_here else run.seed,
            tokens=asked / whole_run if asked and whole_run else 1.0,
            round=run.round if is_here else 0,
        )

    def lost(self) -> list[Mapping[str, str]]:
        """Runs that nothing is known of, each with its `run_id` and the `reason`."""
        known = {run.id for run, _ in self.finished}
        return [
            {
                "run_id": run.id,
                "reason": f"{job.failure_code}: {job.failure_detail}"
                if job.failure_code
                else "its results are not in",
            }
            for run, job in self.runs
            if run.id not in known
        ]


def given_swarms(session: Session, ids: Sequence[str], with_anchors: bool = False) -> list[GivenSwarm]:
    """The swarms with their runs, in the order they are named; raises NotFound."""
    found = []
    for swarm_id in ids:
        swarm = session.get(Swarm, swarm_id)
        if swarm is None:
            raise NotFound("swarm", swarm_id)
        revision = session.get_one(Revision, swarm.revision_id, options=[joinedload(Revision.domain_set)])
        owner = (
            None if swarm.optimization_id is None else session.get_one(Optimization, swarm.optimization_id)
        )
        query = (
            select(Run, Job).join(Job, jobs.of_run()).where(Run.swarm_id == swarm_id).order_by(Run.position)
        )
        rows: Any = session.execute(query).all()
        found.append(GivenSwarm(swarm, revision, owner, [(run, job) for run, job in rows], with_anchors))
    return found


@dataclass(frozen=True)
class GivenEvidence:
    """The runs of an optimization's swarms.

    Attributes:
        runs: over its own revision's domains.
        older: of older revisions, each with the revision's id in the lineage.
        lost: that nothing is known of.
    """

    runs: tuple[RunEvidence, ...] = ()
    older: tuple[tuple[str, RunEvidence], ...] = ()
    lost: tuple[Mapping[str, str], ...] = ()


def given_evidence(
    session: Session, optimization: Optimization, document: OptimizationDocument
) -> GivenEvidence:
    """What the swarms say that an optimization names; nothing where it names none."""
    swarms = given_swarms(session, document.swarms, with_anchors=document.target is not None)
    tasks = [task.name for task in document.tasks]
    runs: list[RunEvidence] = []
    older: list[tuple[str, RunEvidence]] = []
    for given in swarms:
        if given.revision.id == optimization.revision_id:
            prefix = f"{given.label}/" if len(swarms) > 1 else ""
            runs += given.evidence(tasks, document.whole_run, prefix, document.run_parameters)
            continue
        found = _carried(session, given, optimization, document)
        older += [(node_id(given.revision), run) for run in found]
    return GivenEvidence(tuple(runs), tuple(older), tuple(lost for given in swarms for lost in given.lost()))


def _carried(
    session: Session, given: GivenSwarm, optimization: Optimization, document: OptimizationDocument
) -> list[RunEvidence]:
    """Runs of an older revision, whose held-out slices may be called otherwise now."""
    if given.optimization is None or given.document is None or given.document.proxy is None:
        return given.evidence([task.name for task in document.tasks], document.whole_run, f"{given.label}/")
    comparison = Comparison.of(session, optimization.revision, document)
    return [
        comparison.evidence(FinishedRun(run, given.optimization, given.document, 0.0))
        for run, _ in given.finished
    ]
