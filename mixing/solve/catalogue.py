"""Every solver by name: what it is, what it can be combined with, and the function that finds the mixture."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixing.parts import Part, index, lazy

if TYPE_CHECKING:  # importing what solves would slow down a process that only checks requests
    from mixing.solve.solution import Solution
    from mixing.solve.solvers import FittedQuestion


@dataclass(frozen=True, kw_only=True)
class SolverPart(Part):
    """How the mixture is found.

    Attributes:
        solve: the mixture of a question.
        needs_convex: whether the regression must be convex.
        for_convex: whether it is meant for one that is or may be; another brings its preferred solver along.
        needs: the one regression it is the closed form of, or None.
        respects_constraints: whether it can take group shares and pins beyond caps.
    """

    solve: Callable[["FittedQuestion"], "Solution"]
    needs_convex: bool = False
    for_convex: bool = False
    needs: str | None = None
    respects_constraints: bool = True


SOLVERS: Mapping[str, SolverPart] = index(
    SolverPart(
        name="exact",
        title="certified minimum of a convex law",
        source="Boyd and Vandenberghe 2004",
        solve=lazy("mixing.solve.solvers:exact"),
        needs_convex=True,
        for_convex=True,
    ),
    SolverPart(
        name="best",
        title="certified minimum where the law is convex, refined search where it is not",
        solve=lazy("mixing.solve.solvers:exact_or_searched"),
        for_convex=True,
    ),
    SolverPart(
        name="search",
        title="refined search from many starts",
        solve=lazy("mixing.solve.solvers:refined_search"),
    ),
    SolverPart(
        name="mean-of-best",
        title="mean of the 128 best of 100,000 draws",
        source="RegMix, arXiv 2407.01492",
        solve=lazy("mixing.solve.solvers:best_draws"),
    ),
    SolverPart(
        name="predicted-best",
        title="best predicted of fresh candidates",
        source="CLIMB, arXiv 2504.13161",
        solve=lazy("mixing.solve.solvers:best_candidate"),
    ),
    SolverPart(
        name="posterior-mean",
        title="best posterior mean at full fidelity",
        source="ADMIRE-BayesOpt",
        solve=lazy("mixing.solve.solvers:best_posterior_mean"),
    ),
    SolverPart(
        name="extrapolated-closed-form",
        title="closed form at two budgets, extrapolated to the target",
        source="AutoScale, arXiv 2407.20177",
        solve=lazy("mixing.solve.solvers:extrapolated"),
        needs="autoscale-budgets",
        respects_constraints=False,
    ),
)
