"""Which domains keep their ratios to each other, and which are recomputed.

Keeping ratios saves runs where there is nothing else to save them by. Where older runs can be counted it saves none:
they know the unchanged domains already, and to search these again costs no training. So `auto` freezes nothing then;
in `benchmarks.reuse` that keeps several percent of the gain that frozen ratios lose.

Where no older run counts, `auto` weighs what keeping ratios costs, by the couplings of the law that the mixture in
use was solved in, against the gain and its noise. Of domains that changed since, a law can only say what moving their
whole weight would do to the others, so that is what counts: an upper estimate. What a new domain will do nobody
knows; it counts like the median of the old ones at its natural share.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mixing.change.lineage import EvidenceSpace
from mixing.errors import InvalidSetting, UnknownDomain, UnknownRevision
from mixing.repetition import repetition_caps
from mixing.reuse.question import ReuseQuestion, StartMixture
from mixing.simplex_map import SimplexMap
from mixing.solve.conflicts import linear_conflict
from mixing.solve.feasibility import is_feasible
from mixing.solve.linear_system import LinearSystem

VIRTUAL = "kept"
"""What the virtual domain is called, with underscores behind where a domain is called so."""
TOLERATED_SHARE = 0.01
"""Of the predicted gain, that keeping ratios may cost before `auto` frees a domain."""
TOLERATED_NOISE = 0.1
"""Of the standard error of the predicted gain, likewise: what is far below the noise no training finds."""

Groups = Mapping[str, Mapping[str, float]]


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


def choose(question: ReuseQuestion, fitted: bool) -> Choice:
    """What the question's kind of reuse comes to.

    Args:
        question: what was asked.
        fitted: whether the older runs alone are enough to fit a law of every task of the objective.

    Raises:
        InvalidSetting: ratios to keep without a mixture, or nothing to free for `partial`.
        UnknownDomain: a domain to free that is not there.
        UnknownRevision: the mixture is of another lineage.
        Infeasible: no mixture with these ratios keeps to the caps and constraints.
    """
    start = question.start
    if question.reuse == "none":
        return Choice("none", {}, ("No ratio is kept: every domain is searched.",))
    if start is None:
        if question.reuse != "auto":
            raise InvalidSetting(
                "there is no mixture whose ratios could be kept; name one, or ask for reuse 'none'",
                field="reuse.mixture",
            )
        return Choice(
            "none", {}, ("Every domain is searched: there is no mixture whose ratios could be kept.",)
        )
    kept = kept_domains(question.space, start.revision)
    if question.reuse == "auto":
        return _automatic(question, start, kept, fitted)
    freed = _asked(question, start, kept)
    choice = _freeze(question, start, kept, freed)
    _check_feasible(question, choice, start, kept)
    return choice


def _asked(question: ReuseQuestion, start: StartMixture, kept: Mapping[str, str]) -> tuple[str, ...]:
    """The unchanged domains that are freed because the question says so."""
    if question.reuse == "full":
        if question.free or question.most_coupled:
            raise InvalidSetting("reuse 'full' frees nothing; ask for 'partial'", field="reuse.free")
        return ()
    if unknown := sorted(set(question.free) - set(question.space.newest.free)):
        raise UnknownDomain(
            f"there is no domain {', '.join(unknown)} to free in revision {question.space.revision}",
            field="reuse.free",
            names=unknown,
        )
    if question.free:
        return tuple(name for name in question.free if name in kept)
    if not question.most_coupled:
        raise InvalidSetting(
            "reuse 'partial' needs the domains to free, or how many of the most coupled", field="reuse.free"
        )
    costs = costs_of_keeping(question, start, kept)
    if costs is None:
        raise InvalidSetting(
            f"mixture {start.id} tells no couplings; name the domains to free", field="reuse.most_coupled"
        )
    return tuple(sorted(costs, key=lambda name: (-costs[name], name))[: question.most_coupled])


def costs_of_keeping(
    question: ReuseQuestion, start: StartMixture, kept: Mapping[str, str]
) -> dict[str, float] | None:
    """`{kept domain: what keeping its ratio costs the objective}`, by the start's law; None without couplings."""
    if start.coupling is None:
        return None
    coupling, weights, domains = start.coupling, start.weights, question.domains
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


def _automatic(question: ReuseQuestion, start: StartMixture, kept: Mapping[str, str], fitted: bool) -> Choice:
    if fitted:
        why = (
            "Every domain is searched: the older runs tell of the unchanged ones, so that costs no further training.",
        )
        return Choice("none", {}, why)
    costs = costs_of_keeping(question, start, kept)
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
            f"By the law fitted then, keeping all ratios costs the objective {whole:.4f}; {tolerated:.4f} are"
            " tolerated"
        )
        said += f", which is met by freeing {', '.join(freed)}." if freed else "."
    scarce = _to_free(question, start, kept, freed)
    if scarce:
        said += f" At their ratios the caps or shares leave no mixture unless these are freed too: {_listed(scarce)}."
    choice = _freeze(question, start, kept, [*freed, *scarce])
    return Choice(choice.kind, choice.groups, (*choice.why, said), choice.lost)


def _to_free(
    question: ReuseQuestion, start: StartMixture, kept: Mapping[str, str], freed: Collection[str]
) -> list[str]:
    """The fewest further members to free, the scarcest first, so that some mixture keeps to caps and constraints."""
    ratios = dict(*_freeze(question, start, kept, freed).groups.values())
    order = sorted((name for name in ratios if ratios[name] > 0), key=_scarcity(question, ratios))

    def enough(count: int) -> bool:
        groups = _freeze(question, start, kept, {*freed, *order[:count]}).groups
        return not groups or _is_feasible(question, groups)

    # The more are freed the more mixtures there are, so the fewest can be found by halving.
    low, high = -1, len(order)
    while high - low > 1:
        low, high = ((low + high) // 2, high) if not enough((low + high) // 2) else (low, (low + high) // 2)
    return order[:high]


def _freeze(
    question: ReuseQuestion, start: StartMixture, kept: Mapping[str, str], freed: Collection[str]
) -> Choice:
    """Every kept domain but the freed ones at its ratio in the start mixture."""
    ratios = {name: float(start.weights[old]) for name, old in kept.items() if name not in freed}
    total = sum(ratios.values())
    if len(ratios) < 2 or total <= 0:
        return Choice("none", {}, (f"Fewer than two domains of mixture {start.id} have a ratio to keep.",))
    virtual, names = VIRTUAL, set(question.space.newest.free)
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


def _system(question: ReuseQuestion, groups: Groups) -> LinearSystem:
    domains = question.domains
    caps = repetition_caps(domains, question.target_tokens, question.repetition_cap)
    return LinearSystem.over(SimplexMap.freeze(domains.names, groups), caps, question.constraints)


def _is_feasible(question: ReuseQuestion, groups: Groups) -> bool:
    if question.constraints:
        return is_feasible(_system(question, groups))
    # Caps alone leave a mixture where they sum to 1, which takes no linear program.
    domains = question.domains
    caps = repetition_caps(domains, question.target_tokens, question.repetition_cap)
    searched = SimplexMap.freeze(domains.names, groups).pull_back_caps(caps)
    return bool(np.minimum(searched, 1).sum() >= 1 - 1e-12)


def _check_feasible(
    question: ReuseQuestion, choice: Choice, start: StartMixture, kept: Mapping[str, str]
) -> None:
    if not choice.groups or _is_feasible(question, choice.groups):
        return
    freed = set(kept) - set(*choice.groups.values())
    scarce = _to_free(question, start, kept, freed)
    error = linear_conflict(_system(question, choice.groups)).error()
    error.args = (
        f"with the ratios of mixture {start.id} kept, {error} (of weight, 1 being the whole mixture). First to run"
        f" out is {scarce[0]}; with reuse 'partial' and {_listed(scarce)} free there is a mixture, as 'auto' finds",
    )
    error.field = "reuse"
    raise error


def _scarcity(question: ReuseQuestion, ratios: Mapping[str, float]) -> Callable[[str], tuple[float, str]]:
    """A member's key: how large the virtual domain may become until it runs out, then its name."""
    domains = question.domains
    caps = repetition_caps(domains, question.target_tokens, question.repetition_cap)
    room = dict(zip(domains.names, caps.tolist(), strict=True))
    return lambda name: (room[name] / ratios[name], name)
