"""Reusing what is known when domains change: ratios of the mixture in use, and the runs of older revisions."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from functools import partial

from mixing.change.lineage import EvidenceSpace
from mixing.domains import Domains
from mixing.errors import InvalidSetting, MissingDomain, UnknownDomain
from mixing.methods import Recipe
from mixing.parts import REGRESSIONS, SAMPLERS
from mixing.runs.evidence import RunEvidence
from mixing.simplex_map import SimplexMap


@dataclass(frozen=True)
class Reuse:
    """What an optimization goes on from: given to a `Question` as `reuse`.

    Attributes:
        groups: `{virtual domain: {leaf: ratio}}`; leaves in no group are free, and without groups all are.
        space: the contents that older runs are points of; None where only runs of this revision count.
        runs: the runs of older revisions, their mixtures over the contents (`older_run`).

    Raises:
        InvalidSetting: older runs without the contents they are points of.

    >>> Reuse({"kept": {"web": 0.7, "code": 0.3}}).groups["kept"]["code"]
    0.3
    """

    groups: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    space: EvidenceSpace | None = None
    runs: tuple[RunEvidence, ...] = ()

    def __post_init__(self) -> None:
        if self.runs and self.space is None:
            raise InvalidSetting("older runs need the lineage they come from", field="reuse")

    def search_space(self, domains: Domains) -> SimplexMap:
        """From what is searched, virtual domains and free ones, to the domains.

        Raises:
            UnknownDomain, DuplicateDomain, InvalidDomainName, InvalidWeights: as `SimplexMap.freeze`.
        """
        return SimplexMap.freeze(domains.names, self.groups)

    def evidence_space(self, domains: Domains) -> EvidenceSpace:
        """The contents; without a lineage the domains themselves.

        Raises:
            MissingDomain, UnknownDomain: the lineage's newest revision has other domains.
        """
        if self.space is None:
            return EvidenceSpace(domains, {"": SimplexMap.identity(domains.names)}, "")
        given = self.space.newest.free
        if unknown := sorted(set(given) ^ set(domains.names)):
            kind = UnknownDomain if unknown[0] in given else MissingDomain
            raise kind(
                f"the lineage's newest revision and the domains asked for differ in {', '.join(unknown)}",
                field="reuse",
                names=unknown,
            )
        return self.space


NOTHING_REUSED = Reuse()
"""Every domain free, and no runs but those of this revision."""

OTHER_SEED = 0.05
"""The doubt in a run of another seed: as much as the noise a law takes for usual, so that it counts half."""


def older_run(run: RunEvidence, revision: str, space: EvidenceSpace, seed: int | None = None) -> RunEvidence:
    """A run of one of the lineage's revisions as evidence for the newest.

    Args:
        run: its mixture over that revision's domains.
        revision: id.
        space: the contents it becomes a point of.
        seed: of the runs it will be compared with; where the run's own is another, it is doubted by `OTHER_SEED`.

    Raises:
        UnknownRevision, UnknownDomain, MissingDomain: as `EvidenceSpace.carry`.

    >>> from mixing.change.diff import diff
    >>> from mixing.change.lineage import RevisionNode, space_of
    >>> from mixing.change.revision import Leaf
    >>> before, after = {"web": Leaf(6e9, "w"), "code": Leaf(2e9, "c")}, {"web": Leaf(6e9, "w")}
    >>> nodes = [RevisionNode("1", before), RevisionNode("2", after, "1", diff(before, after))]
    >>> space = space_of(nodes, "2")
    >>> run = RunEvidence("run-0", {"web": 0.7, "code": 0.3}, {"humaneval": 1.41})
    >>> older = older_run(run, "1", space)
    >>> older.mixture["web"], older.older  # the text of code still counts, though the domain is gone
    (0.7, True)
    """
    doubted = run.seed is not None and seed is not None and run.seed != seed
    return replace(
        run.carried(partial(space.carry, revision)),
        older=revision != space.revision,
        doubt=OTHER_SEED if doubted else run.doubt,
    )


def least_new_runs(recipe: Recipe, reuse: Reuse, domains: Domains, tasks: Collection[str] = ()) -> int:
    """Fewest runs of the newest revision that, with the older ones, the regression can be fitted to.

    A law over the contents is fitted to all runs that measured a task; one over virtual and free domains, where
    ratios are kept, to the new ones alone. Either will do.

    Args:
        recipe: the method's parts.
        reuse: what is reused.
        domains: of the newest revision.
        tasks: of the objective; each needs its runs. Without any, all older runs count.
    """
    searched = reuse.search_space(domains).free
    if len(searched) == 1 and not reuse.runs:
        return 0
    counts = [sum(task in run.metrics for run in reuse.runs) for task in tasks] or [len(reuse.runs)]
    over_contents = recipe.minimum_runs(len(reuse.evidence_space(domains).contents)) - min(counts)
    if not reuse.groups:
        return max(over_contents, 0)
    return max(min(over_contents, recipe.minimum_runs(len(searched))), 0)


def check_reusable(recipe: Recipe, reuse: Reuse) -> None:
    """Refuse what a recipe cannot make of frozen ratios or older runs, instead of ignoring it.

    Raises:
        InvalidSetting: naming the part.
    """
    if reason := not_reusable(recipe, ratios=bool(reuse.groups), runs=bool(reuse.runs)):
        raise InvalidSetting(reason, field="reuse")


def not_reusable(recipe: Recipe, *, ratios: bool, runs: bool) -> str | None:
    """Why the recipe cannot keep ratios, or cannot learn from older runs; None where it can."""
    sampler, regression = SAMPLERS[recipe.sampler], REGRESSIONS[recipe.regression]
    if not (ratios or runs):
        return None
    if regression.reads_own_domain:
        return f"the regression {regression.name!r} reads each domain's own weight alone, and knows no virtual domain"
    if sampler.exact_per_domain is not None or regression.sampler is not None:
        return f"the sampler {sampler.name!r} has a design of its own, which older runs and frozen ratios do not fit"
    if sampler.reads_entropies and ratios:
        return f"the sampler {sampler.name!r} needs the entropies of every domain by itself"
    return None
