"""What a new optimization goes on from: the mixture in use, the runs there are, and the plan of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mixing.change.lineage import RevisionNode, space_of
from mixing.errors import Infeasible, MixingError, TooFewRuns
from mixing.reuse.choice import Continuation, PastRun, StartMixture
from mixing.reuse.plan import plan_reuse
from mixing.reuse.reuse import NOTHING_REUSED
from service.mixtures.service import mixture_with_id
from service.optimizations.checks import CheckedRequest
from service.optimizations.schemas import ReuseRequest
from store.documents import OptimizationDocument, ReuseDocument
from store.problems import Invalid, NotCounted, invalid
from store.revisions.changes import ancestry, is_known, node_id
from store.revisions.past_runs import Comparison, finished_runs, has_finished_runs, mean_seconds
from store.revisions.shared_text import counted_domains, unmeasured
from store.tables import PROPOSED, MixtureRow, Revision


@dataclass(frozen=True)
class ReuseQuestion:
    """What is read of the store for a plan; `plan` computes it and reads nothing more.

    Attributes:
        asked: kind, freed domains and whether older runs may count.
        start: the mixture to go on from, None where there is none.
        revision: the newest, with its domains.
        nodes: the lineage, the newest revision first.
        past: the finished runs of its revisions.
        seconds_per_run: mean worker seconds of those that can be compared with new ones.
    """

    asked: ReuseRequest
    start: StartMixture | None
    revision: Revision
    nodes: Sequence[RevisionNode]
    past: tuple[PastRun, ...]
    seconds_per_run: float | None

    def plan(self, document: OptimizationDocument, runs: int | None) -> ReuseDocument:
        """The plan for a question whose shares are resolved. Raises Invalid naming the field at fault."""
        try:
            plan = plan_reuse(
                Continuation(
                    question=document.question(
                        counted_domains(self.revision), NOTHING_REUSED, unmeasured(self.revision)
                    ),
                    space=space_of(self.nodes, self.nodes[0].id),
                    past=self.past,
                    start=self.start,
                    kind=self.asked.kind,
                    free=tuple(self.asked.free),
                    most_coupled=self.asked.most_coupled,
                    reuse_runs=self.asked.runs,
                    runs=runs,
                    seconds_per_run=self.seconds_per_run,
                )
            )
        except MixingError as error:
            raise _refused(error) from error
        return ReuseDocument(
            asked=self.asked.model_dump(),
            mixture=self.start and self.start.id,
            runs=tuple(sorted(plan.reused)),
            plan=plan,
        )


def reuse_question(
    session: Session,
    revision: Revision,
    checked: CheckedRequest,
    dry_run: bool = False,
) -> ReuseQuestion | None:
    """What the plan is made of that was asked for, or goes without saying; None where there is nothing to reuse.

    Without a word, a revision with an ancestor that has a proposed mixture goes on from it (`auto`), and any other
    begins anew.

    Raises:
        NotFound: the mixture.
        Invalid: naming the field at fault.
        NotCounted: the domains' tokens or contents are not known yet.
    """
    chain = ancestry(session, revision)
    asked, start = _asked(session, checked.request.reuse, chain)
    if asked is None:
        if not dry_run:
            return None
        asked = ReuseRequest(kind="none", runs=False)
    _check(asked, chain)
    if asked.kind == "none" and not asked.runs and not dry_run:
        return None
    if (
        not dry_run
        and start is None
        and asked.kind in ("none", "auto")
        and not has_finished_runs(session, chain)
    ):
        return None
    _check_counted(asked, revision)  # before the runs are read, which may be many
    comparison = Comparison.of(session, revision, checked.document)
    known = {node.id for node in comparison.nodes}
    runs = [one for one in finished_runs(session, chain) if node_id(one.optimization.revision) in known]
    past = tuple(comparison.past_run(one) for one in runs)
    alike = [one for one, run in zip(runs, past, strict=True) if run.unlike is None]
    begin = None if start is None else _start(start)
    return ReuseQuestion(asked, begin, revision, comparison.nodes, past, mean_seconds(alike) or None)


def _asked(
    session: Session, reuse: ReuseRequest | None, chain: Sequence[Revision]
) -> tuple[ReuseRequest | None, MixtureRow | None]:
    """What was asked for, or goes without saying, and the mixture to go on from."""
    if reuse is not None and reuse.mixture is not None:
        row = mixture_with_id(session, reuse.mixture)
        if row.revision_id not in {one.id for one in chain}:
            raise Invalid(
                "other_lineage",
                f"Mixture {row.id} is over revision {row.revision.number} of {row.revision.domain_set.name!r}, which"
                f" is no ancestor of revision {chain[0].number} of {chain[0].domain_set.name!r}.",
                "reuse.mixture",
            )
        return reuse, row
    start = _newest_proposed(session, chain[1:])
    if reuse is None:
        return (None if start is None else ReuseRequest(kind="auto")), start
    return reuse, None if reuse.kind == "none" else start


def _newest_proposed(session: Session, ancestors: Sequence[Revision]) -> MixtureRow | None:
    """The newest proposed mixture of the nearest ancestor that has one."""
    for one in ancestors:
        query = (
            select(MixtureRow)
            .where(MixtureRow.revision_id == one.id, MixtureRow.kind == PROPOSED)
            .order_by(MixtureRow.created_at.desc(), MixtureRow.id.desc())
            .limit(1)
        )
        if (row := session.scalar(query)) is not None:
            return row
    return None


def _check(asked: ReuseRequest, chain: Sequence[Revision]) -> None:
    """Raise Invalid for members that contradict each other, and for a domain to free that is not there."""
    given = [name for name in ("free", "most_coupled") if getattr(asked, name)]
    if asked.kind != "partial" and given:
        raise Invalid(
            "not_partial", f"Only reuse 'partial' frees domains; leave {given[0]} out.", f"reuse.{given[0]}"
        )
    if asked.kind == "partial" and len(given) != 1:
        raise Invalid(
            "nothing_to_free" if not given else "two_ways_to_free",
            "Reuse 'partial' frees the domains in free, or as many of the most coupled as most_coupled says: give one"
            " of the two.",
            "reuse.free",
        )
    names = {row.name for row in chain[0].domains}
    for index, name in enumerate(asked.free):
        if name in names:
            continue
        last = next((one.number for one in chain[1:] if name in {row.name for row in one.domains}), None)
        gone = f" any more: revision {last} was the last that had it" if last else ""
        raise Invalid(
            "removed_domain" if last else "unknown_domain",
            f"Revision {chain[0].number} has no domain {name!r}{gone}.",
            f"reuse.free[{index}]",
            names=[name],
        )


def _check_counted(asked: ReuseRequest, revision: Revision) -> None:
    """Raise NotCounted where tokens or contents are not known yet, saying what to ask for instead."""
    if is_known(revision):
        return
    reuses_nothing = asked.kind == "none" and not asked.runs
    instead = "send it without dry_run" if reuses_nothing else 'ask for reuse {"kind": "none", "runs": false}'
    raise NotCounted(
        "not_counted",
        f"Revision {revision.number} of {revision.domain_set.name!r} is still being counted, and the plan "
        f"follows from the count; ask again when it is done, or {instead}, which waits for it.",
        "reuse",
    )


def _start(row: MixtureRow) -> StartMixture:
    evidence = row.evidence or {}
    objective = evidence.get("objective") or {}
    return StartMixture(
        id=row.id,
        revision=node_id(row.revision),
        weights=row.weights,
        coupling=evidence.get("coupling"),
        gain=objective.get("gain"),
        noise=_standard_error(objective),
    )


def _standard_error(objective: Mapping[str, Any]) -> float | None:
    """Of a predicted gain, read off its interval as a normal distribution's."""
    bounds, confidence = objective.get("gain_interval"), objective.get("confidence")
    if bounds is None or not confidence:
        return None
    return (bounds[1] - bounds[0]) / 2 / NormalDist().inv_cdf((1 + confidence) / 2)


def _refused(error: MixingError) -> Invalid:
    """The mathematics' complaint, with the domains that bind and the least change that would help."""
    if isinstance(error, TooFewRuns):
        return Invalid(error.code, f"{error}.", "runs", needed=error.needed)
    field = error.field if (error.field or "").startswith("reuse") else "reuse"
    if isinstance(error, Infeasible) and error.largest_target is not None:
        return Invalid(
            error.code, str(error), field, names=list(error.names), largest_target=error.largest_target
        )
    return invalid(error, field)
