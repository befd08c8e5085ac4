"""Which domains keep their ratios to each other, and which are recomputed.

Keeping ratios saves runs where there is nothing else to save them by. Where older runs can be counted it saves none:
they know the unchanged domains already, and to search these again costs no training. So `auto` freezes nothing then;
in `benchmarks.reuse` that keeps several percent of the gain that frozen ratios lose.

Where no older run counts, `auto` weighs what keeping ratios costs, by the couplings of the law that the mixture in
use was solved in, against the gain and its noise. Of domains that changed since, a law can only say what moving their
whole weight would do to the others, so that is what counts: an upper estimate. What a new domain will do nobody
knows; it counts like the median of the old ones at its natural share.
"""

from bisect import bisect_left
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from mixing.change.lineage import EvidenceSpace
from mixing.domains import Domains
from mixing.errors import InvalidSetting, UnknownDomain, UnknownRevision
from mixing.limits import Limits
from mixing.question import Question
from mixing.simplex_map import SimplexMap

VIRTUAL = "kept"
"""What the virtual domain is called, with underscores behind where a domain is called so."""
TOLERATED_SHARE = 0.01
"""Of the predicted gain, that keeping ratios may cost before `auto` frees a domain."""
TOLERATED_NOISE = 0.1
"""Of the standard error of the predicted gain, likewise: what is far below the noise no training finds."""

Groups = Mapping[str, Mapping[str, float]]
ReuseKind = Literal["full", "partial", "none", "auto"]


@dataclass(frozen=True)
class PastRun:
    """A finished run of this revision or of an older one.

    Attributes:
        id: names it.
        revision: id of the revision its mixture is over.
        mixture: weights by domain of that revision.
        tasks: what was measured on it.
        unlike: why it cannot be compared with the runs to come (another proxy, another tokenizer), or None.
        seed: it was trained with; None where nobody said.

    >>> PastRun("run-0", "1", {"web": 0.7, "code": 0.3}, ("humaneval",), unlike=None, seed=0).revision
    '1'
    """

    id: str
    revision: str
    mixture: Mapping[str, float]
    tasks: tuple[str, ...]
    unlike: str | None
    seed: int | None


@dataclass(frozen=True)
class StartMixture:
    """The mixture whose ratios are to be kept.

    Attributes:
        id: names it.
        revision: id of the revision it is over.
        weights: by domain of that revision.
        coupling: `{domain: {domain: BPB}}` as its evidence document has it (`coupling`), None where it has none.
        gain: its predicted gain over the natural distribution, in BPB, where its evidence document tells it.
        noise: standard error of that gain.

    >>> StartMixture("in use", "1", {"web": 0.7, "code": 0.3}).weights["code"]
    0.3
    """

    id: str
    revision: str
    weights: Mapping[str, float]
    coupling: Mapping[str, Mapping[str, float]] | None = None
    gain: float | None = None
    noise: float | None = None


@dataclass(frozen=True)
class Continuation:
    """A question about a revision, and what there is to go on from.

    Attributes:
        question: its domains are those of `newest_domains(space)`; what it reuses itself is not looked at.
        space: of the revision the mixture is for.
        past: every finished run of the lineage.
        start: the mixture to go on from, or None where there is none (then nothing can be frozen).
        kind: of reuse, as asked for.
        free: with `partial`, unchanged domains to free, by name.
        most_coupled: with `partial`, how many of the most coupled to free.
        reuse_runs: whether older runs may count.
        runs: new runs asked for, None to have them proposed.
        seconds_per_run: what a comparable run took, where one has been trained.

    >>> from mixing.change.lineage import RevisionNode, space_of
    >>> from mixing.change.revision import Leaf
    >>> space = space_of([RevisionNode("1", {"web": Leaf(6e9, "w"), "code": Leaf(2e9, "c")})], "1")
    >>> question = Question(domains=newest_domains(space), objective={"humaneval": 1.0}, target_tokens=4e9)
    >>> Continuation(question, space, kind="none").tasks
    ('humaneval',)
    """

    question: Question
    space: EvidenceSpace
    past: tuple[PastRun, ...] = ()
    start: StartMixture | None = None
    kind: ReuseKind = "auto"
    free: tuple[str, ...] = ()
    most_coupled: int | None = None
    reuse_runs: bool = True
    runs: int | None = None
    seconds_per_run: float | None = None

    @property
    def limits(self) -> Limits:
        """Those of the question."""
        return self.question.limits

    @cached_property
    def tasks(self) -> tuple[str, ...]:
        """Names of the tasks that count in the objective."""
        weights = self.question.specification.tasks
        return tuple(task for task, weight in weights.items() if weight > 0)


def newest_domains(space: EvidenceSpace) -> Domains:
    """The newest revision's domains; a divided one has the tokens of its contents.

    >>> from mixing.change.lineage import RevisionNode, space_of
    >>> from mixing.change.revision import Leaf
    >>> space = space_of([RevisionNode("1", {"web": Leaf(6e9, "w"), "code": Leaf(2e9, "c")})], "1")
    >>> newest_domains(space).names
    ('code', 'web')
    """
    way = space.newest
    return Domains(way.free, way.collapse(space.contents.tokens))


@dataclass(frozen=True)
class Choice:
    """What is frozen.

    Attributes:
        kind: full, partial or none.
        groups: `{virtual domain: {domain: ratio}}`, of none or one.
        why: in sentences.
        lost: what that gives up, in sentences.
    """

    kind: str
    groups: Groups
    why: tuple[str, ...] = ()
    lost: tuple[str, ...] = ()


def kept_domains(space: EvidenceSpace, start: str) -> dict[str, str]:
    """`{domain of the newest revision: the domain of revision start that has the same text}`.

    Raises:
        UnknownRevision: `start` is no ancestor of the newest revision.
    """
    if start not in space.maps:
        raise UnknownRevision(
            f"revision {start} is not in the lineage of revision {space.revision}, so its ratios mean nothing there",
            field="reuse.mixture",
            names=[start],
        )
    before, after = space.maps[start], space.newest
    texts = {before.matrix[:, column].tobytes(): name for column, name in enumerate(before.free)}
    same = {name: texts.get(after.matrix[:, column].tobytes()) for column, name in enumerate(after.free)}
    return {name: old for name, old in same.items() if old is not None}


def choose(continuation: Continuation, fitted: bool) -> Choice:
    """What the kind of reuse asked for comes to.

    Args:
        continuation: what was asked, and what there is to go on from.
        fitted: whether the older runs alone are enough to fit a law of every task of the objective.

    Raises:
        InvalidSetting: ratios to keep without a mixture, or nothing to free for `partial`.
        UnknownDomain: a domain to free that is not there.
        UnknownRevision: the mixture is of another lineage.
        Infeasible: no mixture with these ratios keeps to the caps and constraints.
    """
    start = continuation.start
    if continuation.kind == "none":
        return Choice("none", {}, ("No ratio is kept: every domain is searched.",))
    if start is None:
        if continuation.kind != "auto":
            raise InvalidSetting(
                "there is no mixture whose ratios could be kept; name one, or ask for reuse 'none'",
                field="reuse.mixture",
            )
        return Choice(
            "none", {}, ("Every domain is searched: there is no mixture whose ratios could be kept.",)
        )
    kept = kept_domains(continuation.space, start.revision)
    if continuation.kind == "auto":
        return _automatic(continuation, start, kept, fitted)
    freed = _named_to_free(continuation, start, kept)
    choice = _freeze(continuation, start, kept, freed)
    _check_feasible(continuation, choice, start, kept)
    return choice


def _named_to_free(
    continuation: Continuation, start: StartMixture, kept: Mapping[str, str]
) -> tuple[str, ...]:
    """The unchanged domains that are freed because they were asked for."""
    if continuation.kind == "full":
        if continuation.free or continuation.most_coupled:
            raise InvalidSetting("reuse 'full' frees nothing; ask for 'partial'", field="reuse.free")
        return ()
    if unknown := sorted(set(continuation.free) - set(continuation.space.newest.free)):
        raise UnknownDomain(
            f"there is no domain {', '.join(unknown)} to free in revision {continuation.space.revision}",
            field="reuse.free",
            names=unknown,
        )
    if continuation.free:
        return tuple(name for name in continuation.free if name in kept)
    if not continuation.most_coupled:
        raise InvalidSetting(
            "reuse 'partial' needs the domains to free, or how many of the most coupled", field="reuse.free"
        )
    costs = costs_of_keeping(continuation, start, kept)
    if costs is None:
        raise InvalidSetting(
            f"mixture {start.id} tells no couplings; name the domains to free", field="reuse.most_coupled"
        )
    return tuple(sorted(costs, key=lambda name: (-costs[name], name))[: continuation.most_coupled])


def costs_of_keeping(
    continuation: Continuation, start: StartMixture, kept: Mapping[str, str]
) -> dict[str, float] | None:
    """`{kept domain: what keeping its ratio costs the objective}`, by the start's law; None without couplings."""
    if start.coupling is None:
        return None
    coupling, weights, domains = start.coupling, start.weights, continuation.limits.domains
    changed = sorted(set(weights) - set(kept.values()))
    natural = dict(zip(domains.names, domains.natural_weights.tolist(), strict=True))
    new = sum(weight for name, weight in natural.items() if name not in kept)
    # What came beyond what went: the weight that the domains nobody knows will want, if they are like the others.
    came = min(max(new - sum(weights[name] for name in changed), 0.0), 1.0)
    rows = [name for name, weight in weights.items() if weight > 0]
    costs = {}
    for name, old in kept.items():
        # Costs grow with the square of the weight that changes.
        alike = [coupling.get(row, {}).get(old, 0.0) / weights[row] ** 2 for row in rows if row != old]
        unknown = came**2 * float(np.median(alike)) if alike else 0.0
        costs[name] = unknown + sum(coupling.get(row, {}).get(old, 0.0) for row in changed)
    return costs


def _automatic(
    continuation: Continuation, start: StartMixture, kept: Mapping[str, str], fitted: bool
) -> Choice:
    if fitted:
        why = (
            "Every domain is searched: the older runs tell of the unchanged ones, so that costs no further training.",
        )
        return Choice("none", {}, why)
    costs = costs_of_keeping(continuation, start, kept)
    freed: list[str] = []
    if costs is None:
        said = "Nothing is known of how strongly the domains are coupled, so all ratios are kept."
    else:
        tolerated = max(TOLERATED_SHARE * (start.gain or 0.0), TOLERATED_NOISE * (start.noise or 0.0))
        whole = left = sum(costs.values())
        for name in sorted(costs, key=lambda name: (-costs[name], name)):
            if left <= tolerated:
                break
            freed.append(name)
            left -= costs[name]
        said = (
            f"By the law fitted then, keeping all ratios costs the objective {whole:.4g}; {tolerated:.4g} are"
            " tolerated"
        )
        said += f", which is met by freeing {', '.join(freed)}." if freed else "."
    scarce = _to_free(continuation, start, kept, freed)
    if scarce:
        said += f" At their ratios the caps or shares leave no mixture unless these are freed too: {_listed(scarce)}."
    choice = _freeze(continuation, start, kept, [*freed, *scarce])
    return Choice(choice.kind, choice.groups, (*choice.why, said), choice.lost)


def _to_free(
    continuation: Continuation, start: StartMixture, kept: Mapping[str, str], freed: Collection[str]
) -> list[str]:
    """The fewest further members to free, the scarcest first, so that some mixture keeps to caps and constraints."""
    ratios = dict(*_freeze(continuation, start, kept, freed).groups.values())
    order = sorted((name for name in ratios if ratios[name] > 0), key=_scarcity(continuation, ratios))

    def enough(count: int) -> bool:
        groups = _freeze(continuation, start, kept, {*freed, *order[:count]}).groups
        return not groups or _leaves_a_mixture(continuation, groups)

    # The more are freed the more mixtures there are, so the fewest can be found by halving.
    return order[: bisect_left(range(len(order)), True, key=enough)]


def _freeze(
    continuation: Continuation, start: StartMixture, kept: Mapping[str, str], freed: Collection[str]
) -> Choice:
    """Every kept domain but the freed ones at its ratio in the start mixture."""
    ratios = {name: float(start.weights[old]) for name, old in kept.items() if name not in freed}
    total = sum(ratios.values())
    if len(ratios) < 2 or total <= 0:
        return Choice("none", {}, (f"Fewer than two domains of mixture {start.id} have a ratio to keep.",))
    virtual, names = VIRTUAL, set(continuation.space.newest.free)
    while any(name == virtual or name.startswith(f"{virtual}:") for name in names):
        virtual += "_"
    affected = len(names) - len(kept)
    kind = "partial" if freed else "full"
    why = [f"{len(ratios)} domains keep their ratios in mixture {start.id}; {affected} are new or changed."]
    lost = [f"How much each of the {len(ratios)} is worth against the others is not asked again."]
    if none := sorted(name for name, weight in ratios.items() if weight == 0):
        lost.append(f"Left out of that mixture, and so of the new one: {_listed(none)}.")
    return Choice(
        kind, {virtual: {name: weight / total for name, weight in ratios.items()}}, tuple(why), tuple(lost)
    )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")


def _leaves_a_mixture(continuation: Continuation, groups: Groups) -> bool:
    return continuation.limits.is_feasible(SimplexMap.freeze(continuation.limits.domains.names, groups))


def _check_feasible(
    continuation: Continuation, choice: Choice, start: StartMixture, kept: Mapping[str, str]
) -> None:
    if not choice.groups or _leaves_a_mixture(continuation, choice.groups):
        return
    error = continuation.limits.conflict(SimplexMap.freeze(continuation.limits.domains.names, choice.groups))
    if error is None:
        return
    freed = set(kept) - set(*choice.groups.values())
    scarce = _to_free(continuation, start, kept, freed)
    error.args = (
        f"with the ratios of mixture {start.id} kept, {error} (of weight, 1 being the whole mixture). First to run"
        f" out is {scarce[0]}; with reuse 'partial' and {_listed(scarce)} free there is a mixture, as 'auto' finds",
    )
    error.field = "reuse"
    raise error


def _scarcity(continuation: Continuation, ratios: Mapping[str, float]) -> Callable[[str], tuple[float, str]]:
    """A member's key: how large the virtual domain may become until it runs out, then its name."""
    limits = continuation.limits
    room = dict(zip(limits.domains.names, limits.caps.tolist(), strict=True))
    return lambda name: (room[name] / ratios[name], name)
