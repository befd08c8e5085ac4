"""Every regression by name: what it is, what it needs, and how it is made.

Any regressor of scikit-learn is one too, by the name `sklearn:` and its class: `sklearn:KernelRidge`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mixing.laws.regression import Regression
from mixing.parts import Part, index, lazy
from mixing.runs.table import RunTable


@dataclass(frozen=True, kw_only=True)
class RegressionPart(Part):
    """A family of laws.

    Attributes:
        make: the regression with its default settings.
        runs_per_domain: with `runs_beyond`, fewest runs of a proposal: runs_per_domain m + runs_beyond, rounded up.
        runs_beyond: see above.
        convex: whether it is convex in the mixture, so that it can be minimised exactly.
        sampler: the one sampler whose runs it reads, or None for any.
        solver: the one solver that reads it, or None for any.
        preferred_solver: what it is given where the method's own solver needs a convex law and it is none.
        granularity: the one granularity it is fitted at, or None for any.
        reads_tokens: whether it looks at how much each run trained.
        reads_own_domain: whether each of its tasks is the held-out slice of one domain, and it reads that
            domain's weight only.
        positive: whether it needs metrics above 0.
        offered: whether it is named as a way out where there are too few runs for another.
        repeats: how often its cross-validation is repeated over other folds.
    """

    make: Callable[[RunTable], Regression]
    runs_per_domain: float = 1
    runs_beyond: int = 2
    convex: bool = False
    sampler: str | None = None
    solver: str | None = None
    preferred_solver: str = "search"
    granularity: str | None = None
    reads_tokens: bool = False
    reads_own_domain: bool = False
    positive: bool = False
    offered: bool = True
    repeats: int = 2

    def minimum_runs(self, domains: int) -> int:
        """Fewest runs of a proposal over so many domains: those a law is fitted to, and a fold to judge it by."""
        return -int(-self.runs_per_domain * domains // 1) + self.runs_beyond


class _Regressions(Mapping[str, RegressionPart]):
    """The catalogue, and any regressor of scikit-learn when it is asked for; those are not listed."""

    def __init__(self, parts: Mapping[str, RegressionPart]) -> None:
        self._parts = parts

    def __getitem__(self, name: str) -> RegressionPart:
        prefix, _, estimator = name.partition(":")
        if prefix != "sklearn":
            return self._parts[name]
        from mixing.laws.scikit_learn import regressor_named

        regression = regressor_named(estimator)
        return RegressionPart(
            name=name,
            title=f"{estimator} of scikit-learn, with its default settings",
            source="Pedregosa et al. 2011",
            make=lambda _: regression,
            runs_per_domain=0,
            runs_beyond=12,
            preferred_solver="mean-of-best",  # of an unknown shape, which a search may exploit
            offered=False,
        )

    def __iter__(self) -> Iterator[str]:
        return iter(self._parts)

    def __len__(self) -> int:
        return len(self._parts)


REGRESSIONS: Mapping[str, RegressionPart] = _Regressions(
    index(
        RegressionPart(
            name="ensemble",
            title="a linear law, the effective power law and Gaussian processes, weighed per task by held-out error",
            make=lazy("mixing.laws.ensemble:Ensemble.for_runs"),
            preferred_solver="best",
            runs_per_domain=0.5,
            runs_beyond=8,
        ),
        RegressionPart(
            name="effective-power",
            title="a power of the useful data a task sees",
            make=lazy("mixing.laws.powers.effective_power:EffectivePowerLaw.for_runs"),
            runs_per_domain=0.5,
            runs_beyond=8,
            convex=True,
            repeats=4,
        ),
        RegressionPart(
            name="log-linear",
            title="exp(c) + exp(a . p)",
            source="Data Mixing Laws, arXiv 2403.16952; Olmix, arXiv 2602.12237",
            make=lazy("mixing.laws.exponential.log_linear:LogLinearLaw.for_runs"),
            convex=True,
            positive=True,
            repeats=6,
        ),
        RegressionPart(
            name="linear",
            title="linear in the weights",
            source="ridge regression",
            make=lazy("mixing.laws.linear:LinearLaw.for_runs"),
            convex=True,
        ),
        RegressionPart(
            name="exponentials",
            title="a constant and several exponentials",
            source="Data Mixing Laws, arXiv 2403.16952",
            make=lazy("mixing.laws.exponential.exponentials:ExponentialsLaw.for_runs"),
            convex=True,
        ),
        RegressionPart(
            name="exponential-power",
            title="an exponential and a power of each weight",
            make=lazy("mixing.laws.exponential.exponentials:ExponentialPowerLaw.for_runs"),
            convex=True,
        ),
        RegressionPart(
            name="linear-interactions",
            title="linear, with low-rank interactions of domains",
            make=lazy("mixing.laws.exponential.low_rank:LinearInteractionsLaw.for_runs"),
        ),
        RegressionPart(
            name="log-linear-interactions",
            title="an exponential with low-rank interactions of domains",
            make=lazy("mixing.laws.exponential.low_rank:LogLinearInteractionsLaw.for_runs"),
        ),
        RegressionPart(
            name="bimix",
            title="a power of each domain's weight",
            source="BiMix, arXiv 2405.14908, as the law of a task",
            make=lazy("mixing.laws.powers.power_laws:BiMixLaw.for_runs"),
            convex=True,
        ),
        RegressionPart(
            name="bimix-own-share",
            title="each domain's own loss from its own share",
            source="BiMix, arXiv 2405.14908",
            make=lazy("mixing.laws.powers.own_share:OwnShareLaw.for_runs"),
            runs_per_domain=0,
            runs_beyond=3,
            convex=True,
            granularity="per task",
            reads_own_domain=True,
            positive=True,
            offered=False,
        ),
        RegressionPart(
            name="autoscale",
            title="a power of each domain's tokens",
            source="AutoScale, arXiv 2407.20177, as the law of a task",
            make=lazy("mixing.laws.powers.power_laws:AutoScaleLaw.for_runs"),
            convex=True,
        ),
        RegressionPart(
            name="autoscale-budgets",
            title="a power of each domain's tokens, at two budgets",
            source="AutoScale, arXiv 2407.20177",
            make=lazy("mixing.laws.powers.budgets:BudgetLaw.for_runs"),
            runs_per_domain=4,
            runs_beyond=2,
            sampler="perturbation",
            solver="extrapolated-closed-form",
            granularity="aggregated",
            reads_tokens=True,
            offered=False,
        ),
        RegressionPart(
            name="lightgbm",
            title="gradient-boosted trees",
            source="RegMix, arXiv 2407.01492",
            make=lazy("mixing.laws.trees:Trees.for_runs"),
            runs_per_domain=0,
            runs_beyond=12,
            preferred_solver="mean-of-best",  # the search exploits trees: docs/methods.md
        ),
        RegressionPart(
            name="lightgbm-climb",
            title="gradient-boosted trees of depth 4, regularised",
            source="CLIMB, arXiv 2504.13161",
            make=lazy("mixing.laws.trees:ClimbTrees.for_runs"),
            runs_per_domain=0,
            runs_beyond=12,
            preferred_solver="mean-of-best",  # the search exploits trees: docs/methods.md
        ),
        RegressionPart(
            name="gaussian-process",
            title="Matern 5/2 over the roots of the weights",
            source="Rasmussen and Williams 2006",
            make=lazy("mixing.laws.processes.gaussian_process:GaussianProcess.for_runs"),
            runs_per_domain=0.5,
            runs_beyond=8,
        ),
        RegressionPart(
            name="multi-fidelity",
            title="a Gaussian process over mixtures and how much was trained",
            source="ADMIRE-BayesOpt",
            make=lazy("mixing.laws.processes.multi_fidelity:OverTokens.for_runs"),
            runs_per_domain=0.5,
            runs_beyond=8,
            reads_tokens=True,
        ),
    )
)
