"""What an optimization asked for, what it reuses and what its runs have measured: what sampling and solving are told.

An accuracy over few questions needs care before a law reads it: the laws predict error rates above 0, and over n
questions nothing tells an error of 0 from one of 1 / (2 n), so a perfect one counts as half a question short of it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from mixing.change.lineage import RevisionNode, space_of
from mixing.document import Document, Documented, to_document
from mixing.domains import Domains
from mixing.runs.evidence import RunEvidence
from store import jobs
from store.documents import Measurements, OptimizationDocument
from store.problems import NotReady, existing
from store.revisions.changes import ancestry, node_id
from store.revisions.past_runs import Comparison, finished_runs
from store.revisions.shared_text import (
    contamination_warnings,
    shared_sets,
    text_warnings,
    uncompared_warnings,
    unique_shares,
    unmeasured,
)
from store.swarms import given_evidence
from store.tables import Job, Optimization, Revision, Run, Swarm

if TYPE_CHECKING:  # the worker, which never solves, need not load what does
    from mixing.question import Question
    from mixing.reuse.reuse import Reuse


@dataclass(frozen=True, kw_only=True)
class OlderRuns:
    """Runs of a revision and its ancestors, of other optimizations, that count.

    Attributes:
        revision: id of the newest.
        lineage: it and its ancestors.
        runs: each with the id of its revision, which its mixture is over.
    """

    revision: str
    lineage: tuple[RevisionNode, ...]
    runs: tuple[tuple[str, RunEvidence], ...]


@dataclass(frozen=True, kw_only=True)
class JobQuestion(Documented):
    """The question of an optimization as its jobs are told of it.

    Attributes:
        document: what was asked for.
        tokens: `{domain: N_j}`.
        unique: the share of a domain's tokens that are of different documents, where it has copies.
        shared: the sets of domains that hold the same text.
        unmeasured: domains too small for a held-out slice.
        warnings: about the text.
        run_seconds: that a run took a worker, on average; None where nobody knows.
        runs: those that have finished, in order.
        lost: those that have not, each with its `run_id` and the `reason`.
        older: the older runs that count; None where none do.
    """

    document: OptimizationDocument
    tokens: Mapping[str, int]
    runs: tuple[RunEvidence, ...] = ()
    lost: tuple[Mapping[str, str], ...] = ()
    older: OlderRuns | None = None
    unique: Mapping[str, float] = field(default_factory=dict)
    shared: tuple[tuple[str, ...], ...] = ()
    unmeasured: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    run_seconds: float | None = None

    @classmethod
    def of(cls, session: Session, optimization: Optimization) -> "JobQuestion":
        """Of an optimization as it stands.

        Raises:
            NotReady: a domain without a count, or an older run of the plan that is not there any more.
        """
        document = OptimizationDocument.of(optimization)
        query = (
            select(Run, Job)
            .join(Job, Job.subject == Run.id)
            .where(Job.owner == optimization.id, Job.kind == jobs.PROXY_RUN)
            .order_by(Job.position)
        )
        contaminated = select(Swarm.contamination).where(Swarm.optimization_id == optimization.id)
        found = session.scalar(contaminated)
        finished: list[RunEvidence] = []
        lost: list[Mapping[str, str]] = []
        seconds: list[float] = []
        for run, job in session.execute(query):
            if job.state == jobs.SUCCEEDED and run.result is not None:
                finished.append(_evidence(run, document))
                if document.anchors_of(run.round) is None:
                    seconds.append(Measurements.of(run.result).seconds or 0.0)
            elif job.state in jobs.ENDED:
                lost.append({"run_id": run.id, "reason": f"{job.failure_code}: {job.failure_detail}"})
        given = given_evidence(session, optimization, document)
        return cls(
            document=document,
            tokens=token_counts(optimization.revision),
            runs=(*finished, *given.runs),
            lost=(*lost, *given.lost),
            older=_older_runs(session, optimization, document, given.older),
            unique=unique_shares(optimization.revision),
            shared=shared_sets(optimization.revision),
            unmeasured=unmeasured(optimization.revision),
            warnings=(
                *text_warnings(optimization.revision, document.tasks),
                *contamination_warnings(found),
                *uncompared_warnings(document.tasks, found),
            ),
            run_seconds=sum(seconds) / len(seconds) if any(seconds) else None,
        )

    def evidence(self) -> tuple[RunEvidence, ...]:
        """The finished runs as a law reads them."""
        return tuple(replace(run, metrics=self._readable(run.metrics)) for run in self.runs)

    def question(self) -> "Question":
        """What was asked for, over the counted domains, with what it reuses."""
        return self.document.question(
            Domains.of(self.tokens, self.unique, self.shared), self._reuse(), self.unmeasured
        )

    def _reuse(self) -> "Reuse":
        from mixing.reuse.reuse import NOTHING_REUSED, Reuse, older_run

        groups = {} if self.document.reuse is None else self.document.reuse.plan.groups
        if self.older is None:
            return Reuse(groups) if groups else NOTHING_REUSED
        space = space_of(self.older.lineage, self.older.revision)
        runs = tuple(
            older_run(replace(run, metrics=self._readable(run.metrics)), revision, space, self.document.seed)
            for revision, run in self.older.runs
        )
        return Reuse(groups, space, runs)

    def kept_ratios(self) -> Mapping[str, float] | None:
        """The one group of ratios where nothing else is left to find: there is nothing to fit. None otherwise."""
        plan = None if self.document.reuse is None else self.document.reuse.plan
        if plan is None or not plan.is_renormalised:
            return None
        (ratios,) = plan.groups.values()
        return ratios

    @property
    def proxy_tokens(self) -> int | None:
        """What a whole run trains; None where nobody said."""
        return self.document.whole_run

    @property
    def _questions(self) -> dict[str, int]:
        """Task -> how many questions its accuracy is the share of, for those measured so."""
        return {
            task.name: task.examples
            for task in self.document.tasks
            if task.metric == "accuracy"
            and task.examples is not None  # nobody said of one measured elsewhere
        }

    def _readable(self, metrics: Mapping[str, float]) -> dict[str, float]:
        most = {name: 1 - 0.5 / count for name, count in self._questions.items()}
        return {name: min(value, most.get(name, math.inf)) for name, value in metrics.items()}

    def with_standard_errors(self, evidence: Document) -> Document:
        """The document with each accuracy's number of questions, its binomial standard error, a note on perfect ones.

        The error sqrt(p (1 - p) / n), at the mean p of the runs, is that of the questions as a sample of all there
        could be. The runs answer the same ones, so between two of them it counts less; their own noise is told
        beside it.
        """
        counts = self._questions
        runs = [*self.runs, *(run for _, run in (self.older.runs if self.older else ()))]
        measured = {name: [run.metrics[name] for run in runs if name in run.metrics] for name in counts}
        for task in evidence["tasks"]:
            if values := measured.get(task["name"]):
                p = sum(values) / len(values)
                task["questions"] = counts[task["name"]]
                task["standard_error"] = math.sqrt(p * (1 - p) / counts[task["name"]])
        notes = [
            f"{sum(value == 1 for value in values)} of {len(values)} runs answered every question of {name}; they"
            " count as half a question short of it."
            for name, values in measured.items()
            if 1 in values
        ]
        return {**evidence, "notes": [*evidence["notes"], *notes]}

    def with_stop(self, evidence: Document) -> Document:
        """The document with `stopped`: why rounds were left out and what that saved; None where none were."""
        look = self.document.stopped
        if look is None:
            unmet = [] if self.document.stop_when is None else [_UNMET]
            return {**evidence, "stopped": None, "notes": [*evidence["notes"], *unmet]}
        hours = None if self.run_seconds is None else look.saved * self.run_seconds / 3600
        stopped = {**to_document(look), "planned": look.runs + look.saved, "device_hours": hours}
        return {**evidence, "stopped": stopped, "notes": [*evidence["notes"], stop_sentence(stopped)]}


_UNMET = "The rule to stop by was not met before the last round, so all planned runs were trained."


def stop_sentence(stopped: Mapping[str, Any]) -> str:
    """When training was stopped, why, and what that saved."""
    hours, noise = stopped["device_hours"], stopped["noise"]
    spent = f"{stopped['saved']} runs" + ("" if hours is None else f", {hours:.2g} device-hours,")
    below = f", below the {noise:.4g} that two seeds of a run differ by" if stopped["met"] == "noise" else ""
    return (
        f"Stopped after {stopped['runs']} of {stopped['planned']} runs: {spent} not spent. The proposal is expected"
        f" to give away {stopped['expected_regret']:.4g}{below}."
    )


Version = tuple[object, ...]
"""Told apart by `repr`."""


def version_of(session: Session, optimization_id: str) -> Version:
    """Another one whenever `JobQuestion.of` would be another, without reading what the runs are and have measured.

    A run's result changes with the state or the end of its job, and a revision's counts and comparisons likewise.
    Raises NotFound.
    """
    asked = select(Optimization.revision_id, Optimization.method, Optimization.seed, Optimization.settings)
    found = session.execute(asked.where(Optimization.id == optimization_id)).first()
    revision, method, seed, settings = existing(found, "optimization", optimization_id)
    named, reused = settings.get("swarms") or [], (settings.get("reuse") or {}).get("runs") or []
    its = or_(Swarm.optimization_id == optimization_id, Swarm.id.in_(named))
    told = select(Swarm.id, Swarm.optimization_id, Swarm.brought, Swarm.contamination).where(its)
    swarms = [tuple(row) for row in session.execute(told.order_by(Swarm.id))]
    owners = {optimization_id, revision, *named, *(str(row[1]) for row in swarms if row[1])}
    ended = select(Job.id, Job.state, Job.finished_at).order_by(Job.id)
    rows = [tuple(row) for row in session.execute(ended.where(Job.owner.in_(owners)))]
    if reused:
        older = ended.where(Job.kind == jobs.PROXY_RUN, Job.subject.in_(reused))
        rows += [tuple(row) for row in session.execute(older)]
    return optimization_id, method, seed, settings, swarms, rows


def token_counts(revision: Revision) -> dict[str, int]:
    """Domain name -> N_j. Raises NotReady naming a domain that has no count yet."""
    counts = {row.name: row.tokens for row in revision.domains}
    for name, tokens in counts.items():
        if tokens is None:
            raise NotReady("data_missing", f"domain {name!r} has not been counted")
    return {name: tokens for name, tokens in counts.items() if tokens is not None}


def _evidence(run: Run, document: OptimizationDocument) -> RunEvidence:
    """A finished run; how much it trained is told in units of the proxy's tokens."""
    measured, whole, anchors = Measurements.of(run.result), document.whole_run, document.anchors_of(run.round)
    own = document.run_parameters
    return RunEvidence(
        id=run.id,
        mixture=measured.realised_weights or run.weights,
        requested=run.weights,
        metrics=measured.final,
        noise=measured.noise,
        tokens=run.requested_tokens / whole if run.requested_tokens and whole else 1.0,
        size=anchors.parameters / own if anchors is not None and own else 1.0,
        round=run.round,
    )


def _older_runs(
    session: Session,
    optimization: Optimization,
    document: OptimizationDocument,
    given: Sequence[tuple[str, RunEvidence]],
) -> OlderRuns | None:
    wanted = set() if document.reuse is None else set(document.reuse.runs)
    if not wanted and not given:
        return None
    comparison = Comparison.of(session, optimization.revision, document)
    runs = finished_runs(session, ancestry(session, optimization.revision))
    counted = [finished for finished in runs if finished.run.id in wanted]
    if missing := sorted(wanted - {finished.run.id for finished in counted}):
        raise NotReady("data_missing", f"of the older runs {', '.join(missing[:3])} are not there any more")
    return OlderRuns(
        revision=node_id(optimization.revision),
        lineage=tuple(comparison.nodes),
        runs=(
            *(
                (node_id(finished.optimization.revision), comparison.evidence(finished))
                for finished in counted
            ),
            *given,
        ),
    )
