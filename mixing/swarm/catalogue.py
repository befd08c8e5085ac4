"""Every sampler by name: what it is, what it can be combined with, and the function that draws its runs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mixing.parts import Part, index, lazy

if TYPE_CHECKING:  # importing what samples would slow down a process that only checks requests
    from mixing.swarm.sample import Round, SampledRun


@dataclass(frozen=True, kw_only=True)
class SamplerPart(Part):
    """How a swarm is drawn.

    Attributes:
        draw: the runs of a round.
        absolute_tokens: whether its runs differ in how many tokens they train, not only in their mixture.
        learns: whether rounds after the first are chosen from the metrics of those before.
        reads_entropies: whether it needs the token statistics of the domains.
        exact_per_domain: its design takes this many runs a domain and one more a round; None for any number.
    """

    draw: Callable[["Round"], tuple["SampledRun", ...]]
    absolute_tokens: bool = False
    learns: bool = False
    reads_entropies: bool = False
    exact_per_domain: int | None = None

    def exact_runs(self, domains: int) -> int | None:
        """The one number of runs a round of its design has over so many domains, or None for any."""
        return None if self.exact_per_domain is None else self.exact_per_domain * domains + 1


SAMPLERS: Mapping[str, SamplerPart] = index(
    SamplerPart(
        name="two-level-dirichlet",
        title="Dirichlet over sources, then over topics",
        source="Olmix, arXiv 2602.12237",
        draw=lazy("mixing.swarm.samplers:two_level"),
    ),
    SamplerPart(
        name="tempered-dirichlet",
        title="Dirichlet around the square root of the prior",
        source="RegMix, arXiv 2407.01492",
        draw=lazy("mixing.swarm.samplers:tempered_dirichlet"),
    ),
    SamplerPart(
        name="exponential-grid",
        title="powers of one half of each domain's largest share",
        source="arXiv 2403.16952",
        draw=lazy("mixing.swarm.samplers:exponential_grid"),
    ),
    SamplerPart(
        name="perturbation",
        title="each domain's tokens times 3 and times 1/3",
        source="AutoScale, arXiv 2407.20177",
        draw=lazy("mixing.swarm.samplers:perturbed"),
        absolute_tokens=True,
        exact_per_domain=2,
    ),
    SamplerPart(
        name="entropy",
        title="softmax over four entropies",
        source="BiMix, arXiv 2405.14908",
        draw=lazy("mixing.swarm.samplers:entropy_weighted"),
        reads_entropies=True,
    ),
    SamplerPart(
        name="d-optimal",
        title="the two-level draws that tell a law most together",
        source="Fedorov 1972",
        draw=lazy("mixing.swarm.samplers:d_optimal"),
    ),
    SamplerPart(
        name="maximin",
        title="the two-level draws farthest from each other",
        source="Johnson, Moore and Ylvisaker 1990",
        draw=lazy("mixing.swarm.samplers:maximin"),
    ),
    SamplerPart(
        name="predicted-best",
        title="Dirichlet, then near the predicted best",
        source="CLIMB, 2504.13161",
        draw=lazy("mixing.swarm.samplers:predicted_best"),
        learns=True,
    ),
    SamplerPart(
        name="acquisition",
        title="Dirichlet on short runs, then what tells most of the best per token",
        source="ADMIRE-BayesOpt",
        draw=lazy("mixing.swarm.samplers:max_value_entropy"),
        absolute_tokens=True,
        learns=True,
    ),
)
