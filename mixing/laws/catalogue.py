"""Every regression by name: what it is, what it needs, and how it is made.

A factory imports what it makes when it is called, so that a process which only checks requests loads neither
scikit-learn nor LightGBM.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mixing.laws.protocol import FitContext, Regression
from mixing.parts import Part, index


@dataclass(frozen=True)
class RegressionPart(Part):
    """A family of laws.

    Attributes:
        make: the regression with its default settings.
        runs_per_domain: with `runs_beyond`, fewest runs over m domains: runs_per_domain m + runs_beyond, rounded up.
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

    make: Callable[[FitContext], Regression]
    runs_per_domain: float
    runs_beyond: int
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
        """Fewest runs it can be fitted with over so many domains."""
        return -int(-self.runs_per_domain * domains // 1) + self.runs_beyond


def _log_linear(context: FitContext) -> Regression:
    from mixing.laws.exponential.log_linear import LogLinearLaw

    return LogLinearLaw()


def _effective_power(context: FitContext) -> Regression:
    from mixing.laws.powers.effective_power import EffectivePowerLaw

    return EffectivePowerLaw()


def _ensemble(context: FitContext) -> Regression:
    from mixing.laws.ensemble import default_regression

    return default_regression()


def _gaussian_process(context: FitContext) -> Regression:
    from mixing.laws.processes.gaussian_process import GaussianProcess

    return GaussianProcess()


def _multi_fidelity(context: FitContext) -> Regression:
    from mixing.laws.processes.over_tokens import OverTokens

    return OverTokens(context.tokens)


def _linear(context: FitContext) -> Regression:
    from mixing.laws.linear import LinearLaw

    return LinearLaw()


def _exponentials(context: FitContext) -> Regression:
    from mixing.laws.exponential.exponentials import ExponentialsLaw

    return ExponentialsLaw()


def _exponential_power(context: FitContext) -> Regression:
    from mixing.laws.exponential.exponentials import ExponentialPowerLaw

    return ExponentialPowerLaw()


def _linear_interactions(context: FitContext) -> Regression:
    from mixing.laws.exponential.low_rank import LinearInteractionsLaw

    return LinearInteractionsLaw()


def _log_linear_interactions(context: FitContext) -> Regression:
    from mixing.laws.exponential.low_rank import LogLinearInteractionsLaw

    return LogLinearInteractionsLaw()


def _bimix(context: FitContext) -> Regression:
    from mixing.laws.powers.power_laws import BiMixLaw

    return BiMixLaw()


def _own_share(context: FitContext) -> Regression:
    from mixing.laws.powers.own_share import OwnShareLaw

    return OwnShareLaw(context.own_domains())


def _autoscale(context: FitContext) -> Regression:
    from mixing.laws.powers.power_laws import AutoScaleLaw

    return AutoScaleLaw()


def _autoscale_budgets(context: FitContext) -> Regression:
    from mixing.laws.powers.budgets import BudgetLaw

    return BudgetLaw(context.tokens, context.rounds)


def _trees(context: FitContext) -> Regression:
    from mixing.laws.trees import REGMIX

    return REGMIX


def _climb_trees(context: FitContext) -> Regression:
    from mixing.laws.trees import CLIMB

    return CLIMB


REGRESSIONS: Mapping[str, RegressionPart] = index(
    RegressionPart(
        name="ensemble",
        title="the effective power law and Gaussian processes around it",
        source="ours",
        make=_ensemble,
        runs_per_domain=0.5,
        runs_beyond=10,
    ),
    RegressionPart(
        name="effective-power",
        title="a power of the useful data a task sees",
        source="ours",
        make=_effective_power,
        runs_per_domain=0.5,
        runs_beyond=8,
        convex=True,
        repeats=4,
    ),
    RegressionPart(
        name="log-linear",
        title="exp(c) + exp(a . p)",
        source="Data Mixing Laws, arXiv 2403.16952; Olmix, arXiv 2602.12237",
        make=_log_linear,
        runs_per_domain=1,
        runs_beyond=2,
        convex=True,
        positive=True,
        repeats=6,
    ),
    RegressionPart(
        name="linear",
        title="linear in the weights",
        source="ridge regression",
        make=_linear,
        runs_per_domain=1,
        runs_beyond=2,
        convex=True,
    ),
    RegressionPart(
        name="exponentials",
        title="a constant and several exponentials",
        source="Data Mixing Laws, arXiv 2403.16952",
        make=_exponentials,
        runs_per_domain=1,
        runs_beyond=2,
        convex=True,
    ),
    RegressionPart(
        name="exponential-power",
        title="an exponential and a power of each weight",
        source="ours",
        make=_exponential_power,
        runs_per_domain=1,
        runs_beyond=2,
        convex=True,
    ),
    RegressionPart(
        name="linear-interactions",
        title="linear, with low-rank interactions of domains",
        source="ours",
        make=_linear_interactions,
        runs_per_domain=1,
        runs_beyond=2,
    ),
    RegressionPart(
        name="log-linear-interactions",
        title="an exponential with low-rank interactions of domains",
        source="ours",
        make=_log_linear_interactions,
        runs_per_domain=1,
        runs_beyond=2,
    ),
    RegressionPart(
        name="bimix",
        title="a power of each domain's weight",
        source="BiMix, arXiv 2405.14908, as the law of a task",
        make=_bimix,
        runs_per_domain=1,
        runs_beyond=2,
        convex=True,
    ),
    RegressionPart(
        name="bimix-own-share",
        title="each domain's own loss from its own share",
        source="BiMix, arXiv 2405.14908",
        make=_own_share,
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
        make=_autoscale,
        runs_per_domain=1,
        runs_beyond=2,
        convex=True,
    ),
    RegressionPart(
        name="autoscale-budgets",
        title="a power of each domain's tokens, at two budgets",
        source="AutoScale, arXiv 2407.20177",
        make=_autoscale_budgets,
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
        make=_trees,
        runs_per_domain=0,
        runs_beyond=12,
        preferred_solver="mean-of-best",  # the search exploits trees: docs/methods.md
    ),
    RegressionPart(
        name="lightgbm-climb",
        title="gradient-boosted trees of depth 4, regularised",
        source="CLIMB, arXiv 2504.13161",
        make=_climb_trees,
        runs_per_domain=0,
        runs_beyond=12,
        preferred_solver="mean-of-best",  # the search exploits trees: docs/methods.md
    ),
    RegressionPart(
        name="gaussian-process",
        title="Matern 5/2 over the roots of the weights",
        source="Rasmussen and Williams 2006",
        make=_gaussian_process,
        runs_per_domain=0.5,
        runs_beyond=8,
    ),
    RegressionPart(
        name="multi-fidelity",
        title="a Gaussian process over mixtures and how much was trained",
        source="ADMIRE-BayesOpt",
        make=_multi_fidelity,
        runs_per_domain=0.5,
        runs_beyond=8,
        reads_tokens=True,
    ),
)
