"""The limits of a mixture: what every answer keeps to, whoever looks for it.

Within R target tokens a domain of N_j tokens and weight p_j is read p_j R / N_j times (epochs); a repetition cap of
k epochs is the bound p_j <= k N_j / R. What a domain holds twice is read twice as often, so N_j counts different text
here; and what several domains hold is read as often as all of them are: sum_j p_j R / N_j <= k over these domains.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from mixing.domains import Domains
from mixing.errors import Infeasible, InvalidSetting
from mixing.simplex_map import SimplexMap
from mixing.solve.conflicts import is_feasible, linear_conflict
from mixing.solve.constraints import LinearConstraint, LinearSystem, check_names
from mixing.terms import TaskGuard

BINDING = 1e-6
"""A bound this close, relative to itself, binds; a weight above it by no more still keeps to it."""
LITTLE = 0.1
"""Share of a mixture's tokens; what differs in less can hardly be told apart by any swarm."""
_WHOLE = 1 - 1e-12
"""Weights that may sum to so much may sum to 1: the rest is rounding."""


@dataclass(frozen=True, eq=False)
class Limits:
    """Domains, the budget they are read for, and what no mixture may break.

    >>> limits = Limits(Domains.of({"web": 6e9, "code": 1e9}), target_tokens=4e9, repetition_cap=2)
    >>> limits.check()
    >>> limits.caps  # of code, of web
    array([0.5, 3. ])
    >>> limits.epochs(np.array([0.5, 0.5])), limits.binding(np.array([0.5, 0.5]))
    (array([2.        , 0.33333333]), array([ True, False]))

    Attributes:
        domains: m domains with their tokens N_j.
        target_tokens: R > 0, the size of the training run the mixture is for.
        repetition_cap: k > 0 epochs, or None for no cap.
        constraints: shares and pins.
        guard_rails: what no mixture may cost a task; whether one can be kept only a fitted law can say.

    Raises:
        InvalidSetting: a target or cap that is not positive and finite.
    """

    domains: Domains
    target_tokens: float
    repetition_cap: float | None = None
    constraints: tuple[LinearConstraint, ...] = ()
    guard_rails: tuple[TaskGuard, ...] = ()

    def __post_init__(self) -> None:
        for field in ("target_tokens", "repetition_cap"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InvalidSetting(f"{field} is {value}; it must be a number above 0", field=field)

    @cached_property
    def caps(self) -> np.ndarray:
        """(m,) the largest weight of each domain, k N_j / R, read-only; above 1 where it cannot bind, infinite
        without a cap. N_j is of different text."""
        if self.repetition_cap is None:
            caps = np.full(len(self.domains), np.inf)
        else:
            caps = self.repetition_cap * self.domains.unique_tokens / self.target_tokens
        caps.setflags(write=False)
        return caps

    def epochs(self, weights: np.ndarray) -> np.ndarray:
        """(m,) times each domain's text is read: p_j R / N_j."""
        return weights * self.target_tokens / self.domains.unique_tokens

    @cached_property
    def sharing(self) -> tuple[LinearConstraint, ...]:
        """The caps of what several domains hold: sum_j p_j / cap_j <= 1, as a weight of the smallest of them."""
        caps = dict(zip(self.domains.names, self.caps.tolist(), strict=True))
        limits = []
        for names in self.domains.shared:
            smallest = min(caps[name] for name in names)
            if smallest < 1:
                coefficients = {name: smallest / caps[name] for name in names}
                name = f"text that {' and '.join(names)} share"
                limits.append(LinearConstraint(name, coefficients, upper=smallest))
        return tuple(limits)

    @cached_property
    def all_constraints(self) -> tuple[LinearConstraint, ...]:
        """What was asked for beside the caps, and the caps of shared text."""
        return (*self.constraints, *self.sharing)

    @cached_property
    def separate_caps(self) -> np.ndarray:
        """(m,) caps that keep to those of shared text without looking at each other, for who knows no other limit."""
        shared = self.domains.shared
        holders = [max([1, *(len(held) for held in shared if name in held)]) for name in self.domains.names]
        return self.caps / holders

    def binding(self, weights: np.ndarray) -> np.ndarray:
        """(m,) which caps hold the (m,) weights back."""
        return (self.caps < 1) & (weights >= self.caps * (1 - BINDING))

    def exceeded(self, weights: np.ndarray) -> np.ndarray:
        """(m,) which caps the (m,) weights break, those of shared text included."""
        above = weights > self.caps * (1 + BINDING)
        for limit in self.sharing:
            row = limit.row(self.domains.names)
            if row @ weights > limit.upper * (1 + BINDING):
                above |= (row > 0) & (weights > 0)
        return above

    @property
    def freedom(self) -> float:
        """The largest share of the tokens in which a mixture under the caps can differ from reading all evenly.

        Where that is n, of e epochs under a cap of k, it is 1 - e / k: p_j <= (k / e) n_j, so of the domains S
        that gain at most (k / e - 1) n(S) is gained, and of the others at most 1 - n(S) is lost.
        """
        if self.repetition_cap is None:
            return 1.0
        return max(
            0.0, 1 - self.target_tokens / (self.repetition_cap * float(self.domains.unique_tokens.sum()))
        )

    def little_to_decide(self) -> str | None:
        """A sentence where the caps leave hardly any mixture but one; None elsewhere."""
        if self.freedom >= LITTLE:
            return None
        read = self.target_tokens / float(self.domains.unique_tokens.sum())
        return (
            f"There is little to decide: read evenly, all text is read {read:.2f} times, and the cap is"
            f" {self.repetition_cap:g}, so any mixture differs from that in at most"
            f" {100 * self.freedom:.1f}% of its tokens; lower the target or raise the cap for a real choice."
        )

    def is_feasible(self, space: SimplexMap | None = None) -> bool:
        """Whether some mixture keeps to caps and constraints, of those that `space` reaches where it is given."""
        if self.all_constraints:
            return is_feasible(self._system(space))
        # Caps alone leave a mixture where they sum to 1, which takes no linear programme.
        caps = self.caps if space is None else space.pull_back_caps(self.caps)[0]
        return bool(np.minimum(caps, 1).sum() >= _WHOLE)

    def conflict(self, space: SimplexMap | None = None) -> Infeasible | None:
        """Why none does: the smallest set of caps and constraints in conflict, and the least change that ends it."""
        found = linear_conflict(self._system(space))
        return None if found is None else found.error()

    def check(self, space: SimplexMap | None = None) -> None:
        """Refuse before anything is trained or solved what no mixture satisfies, whatever law is fitted.

        Args:
            space: from what is searched to the domains, where some ratios are frozen.

        Raises:
            Infeasible: the target cannot be reached under the caps, with the missing tokens, the largest target and
                the smallest cap that will do; or no mixture satisfies caps and constraints, with those in conflict.
            InvalidSetting: two constraints of one name, or one called like a domain.
            UnknownDomain: a constraint on a domain that is not there.
        """
        self._check_reachable()
        check_names(self.domains.names, [limit.name for limit in (*self.all_constraints, *self.guard_rails)])
        if not self.all_constraints and self.is_feasible(space):
            return
        if (conflict := self.conflict(space)) is not None:
            raise conflict

    def _check_reachable(self) -> None:
        """Refuse a target that no mixture reaches: sum_j min(1, k N_j / R) < 1, that is R > k sum_j N_j."""
        cap, target = self.repetition_cap, self.target_tokens
        if cap is None or np.minimum(self.caps, 1).sum() >= _WHOLE:
            return
        available = float(self.domains.unique_tokens.sum())
        largest = math.floor(cap * available)
        missing = math.ceil(target / cap - available)
        enough = _rounded_up(target / available)
        raise Infeasible(
            f"{target:,.0f} target tokens cannot be reached: {available:,.0f} available tokens at"
            f" most {cap:g} times give {largest:,}; {missing:,} more unique tokens are missing. Lower the target"
            f" to {largest:,}, raise the repetition cap to {enough:.2f}, or add data",
            field="target_tokens",
            missing_tokens=missing,
            largest_target=largest,
            smallest_cap=enough,
        )

    def _system(self, space: SimplexMap | None) -> LinearSystem:
        return LinearSystem.of(
            space or SimplexMap.identity(self.domains.names), self.caps, self.all_constraints
        )


def _rounded_up(value: float) -> float:
    """To the next hundredth, so that advice does not fall short of what it advises by rounding."""
    return math.ceil(value * 100) / 100
