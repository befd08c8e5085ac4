"""Reuse along Olmix's case study: ``python -m benchmarks.olmix_reuse --data DIR [--json FILE]``.

DIR holds the five published configurations (`benchmarks.olmix_configs`). A mixture is taken from revision to revision
with full, partial and automatic reuse, each time with a plan, the runs it proposes and an exact solve; what the runs
measure comes from a law that is made up, for the configurations publish none. At every step what the plan derived and
what was sampled and found is held against the limits on leaves, computed here a second time from the token counts:

- sum of the weights 1, none negative, none above k N_j / R with the file's own k and R;
- a frozen domain's ratio is that of the mixture in use, in the plan, in every run and in the answer;
- the cap of a virtual domain is the least k N_j / (R r_j) of its members, and the binding member has it.

The configuration that is malformed is refused with its file and line, which is printed, and then read as it was
meant.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np

from benchmarks.olmix_configs import FILES, case_study, read_case_study, read_config
from benchmarks.olmix_file import OlmixConfigError
from benchmarks.reuse_strategies import Bench, Strategy
from benchmarks.reuse_truth import Truth
from benchmarks.reuse_updates import Updates
from mixing.change.lineage import RevisionNode
from mixing.reuse.choice import StartMixture, kept_domains
from mixing.reuse.plan import ReusePlan

STRATEGIES: Mapping[str, Strategy] = {
    "full": Strategy("full", keep_runs=True, stream=1),
    "full, ratios alone": Strategy("full", keep_runs=False, stream=2),
    "partial": Strategy("partial", keep_runs=True, stream=3, most_coupled=2),
    "auto": Strategy("auto", keep_runs=True, stream=4),
    "auto, ratios alone": Strategy("auto", keep_runs=False, stream=5),
}
TASKS = 1
NOISE = 1e-3
"""Standard deviation of what a run measures, of losses around 1."""
EXACT = 1e-9
"""Of weights and ratios; the solver's own tolerance is a hundredth of it."""


@dataclass(frozen=True)
class Step:
    """One strategy's answer to one update.

    Attributes:
        strategy, revision: names.
        kind: full, partial or none: what the plan came to.
        frozen: how many domains keep their ratios.
        virtual_cap: derived; None where nothing is frozen, or where no member limits the virtual domain below 1.
        binding_member: the member that sets it.
        virtual_weight: of the virtual domain in the answer.
        at_cap: domains of the answer at their cap.
        new_runs: trained.
        excess: the most by which a weight of the answer or of a run exceeds its cap; negative where none does.
        ratio_error: the largest difference between a ratio in the answer or in a run and that of the mixture in use.
        violated: what does not hold, in sentences.
    """

    strategy: str
    revision: str
    kind: str
    frozen: int
    virtual_cap: float | None
    binding_member: str | None
    virtual_weight: float | None
    at_cap: int
    new_runs: int
    excess: float
    ratio_error: float
    violated: tuple[str, ...]


def updates_of(directory: Path) -> tuple[tuple[str, ...], Updates]:
    """The revisions' names, and the chain with the configurations' own target and repetition factor.

    Raises:
        OlmixConfigError: as `case_study`, or the files differ in the target or the factor.
    """
    limits = {(one.target_tokens, one.repetition_factor) for one in read_case_study(directory).values()}
    if len(limits) != 1:
        raise OlmixConfigError(
            directory, None, f"the files have different targets and factors: {sorted(limits)}"
        )
    ((target, factor),) = limits
    chain = case_study(directory)
    nodes = [RevisionNode("0", chain[0][1])]
    nodes += [
        RevisionNode(str(number), leaves, str(number - 1), changes)
        for number, (_, leaves, changes) in enumerate(chain[1:], start=1)
    ]
    names = tuple(name for name, _, _ in chain)
    return names, Updates({node.id: node for node in nodes}, target, factor)


def made_up(updates: Updates, generator: np.random.Generator) -> Truth:
    """A power law of what every content is worth to each task."""
    worth = generator.lognormal(-0.5, 1.0, (len(updates.whole.contents), TASKS))
    return Truth(lambda weights: 0.8 + 0.5 * (np.sqrt(weights + 1e-4) @ worth) ** -0.5, np.full(TASKS, NOISE))


def walk(
    updates: Updates, names: Sequence[str], strategies: Iterable[str] = STRATEGIES, seed: int = 0
) -> tuple[Step, ...]:
    """The strategies along the chain, every update of each.

    Args:
        updates: the chain.
        names: of its revisions.
        strategies: keys of `STRATEGIES`.
        seed: of the law and of the swarms.
    """
    bench = Bench(made_up(updates, np.random.default_rng(seed)), updates, seed)
    first = bench.begin("mixwright")
    found = []
    for label in strategies:
        strategy = STRATEGIES[label]
        state = deepcopy(first)
        for (_, name), revision in zip(pairwise(names), updates.ids[1:], strict=True):
            before, trained = state.start, len(state.trained)
            bench.update(state, strategy, revision)
            plan = state.plans[-1]
            assert plan is not None, "only a given number of runs may be too few"
            mixtures = [state.start.weights, *(one.run.mixture for one in state.trained[trained:])]
            found.append(_step(updates, (label, name), before, plan, mixtures))
    return tuple(found)


def _step(
    updates: Updates,
    called: tuple[str, str],
    before: StartMixture,
    plan: ReusePlan,
    mixtures: list[Mapping[str, float]],
) -> Step:
    """The answer, first of `mixtures`, and the runs after it, checked."""
    revision = updates.ids[updates.ids.index(before.revision) + 1]
    leaves = updates.nodes[revision].leaves
    caps = {
        name: updates.repetition_cap * (leaf.tokens or 0) / updates.target_tokens
        for name, leaf in leaves.items()
    }
    violated = [said for mixture in mixtures for said in outside(mixture, caps)]
    kept = kept_domains(updates.space(revision), before.revision)
    error, virtual_cap, member, weight, frozen = 0.0, None, None, None, 0
    for virtual, ratios in plan.groups.items():
        total = sum(before.weights[kept[name]] for name in ratios)
        expected = {name: before.weights[kept[name]] / total for name in ratios}
        error = max(apart(mixture, expected) for mixture in [ratios, *mixtures])
        limits = {name: caps[name] / ratio for name, ratio in expected.items() if ratio > 0}
        weight, frozen = sum(mixtures[0][name] for name in ratios), len(ratios)
        member, virtual_cap = plan.binding_members[virtual], plan.virtual_caps[virtual]
        least = min(limits.values())
        if abs(virtual_cap - least) > EXACT * least or limits[member] > least * (1 + EXACT):
            violated.append(f"the cap of {virtual} is {virtual_cap}, by {member}, and should be {least}")
        if weight > least + EXACT:
            violated.append(f"{virtual} weighs {weight}, above its cap of {least}")
    if error > EXACT:
        violated.append(f"a ratio is off by {error}")
    return Step(
        *called,
        kind=plan.kind,
        frozen=frozen,
        virtual_cap=virtual_cap,
        binding_member=member,
        virtual_weight=weight,
        at_cap=sum(mixtures[0][name] >= (1 - 1e-6) * cap for name, cap in caps.items() if cap < 1),
        new_runs=len(mixtures) - 1,
        excess=max(mixture[name] - cap for mixture in mixtures for name, cap in caps.items()),
        ratio_error=error,
        violated=tuple(violated),
    )


def outside(mixture: Mapping[str, float], caps: Mapping[str, float]) -> list[str]:
    """What a mixture does not keep to."""
    found = [
        f"{name} weighs {mixture[name]}" for name in caps if not 0 <= mixture[name] <= caps[name] + EXACT
    ]
    if set(mixture) != set(caps):
        found.append("the mixture is over other domains")
    if abs(sum(mixture.values()) - 1) > EXACT:
        found.append(f"the weights sum to {sum(mixture.values())}")
    return found


def apart(mixture: Mapping[str, float], ratios: Mapping[str, float]) -> float:
    """Largest difference between ratios and those of the same domains in a mixture that gives them weight."""
    total = sum(mixture[name] for name in ratios)
    return max(abs(mixture[name] / total - ratio) for name, ratio in ratios.items()) if total > 1e-6 else 0.0


def main() -> None:
    """Print and write what every step derived."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the configurations")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    for file in FILES:
        try:
            read_config(arguments.data / file)
        except OlmixConfigError as error:
            print(f"refused as it stands: {error}")
    names, updates = updates_of(arguments.data)
    steps = walk(updates, names)
    for step in steps:
        cap = "" if step.virtual_cap is None else f", cap {step.virtual_cap:.4f} by {step.binding_member}"
        violated = f"; VIOLATED: {'; '.join(step.violated)}" if step.violated else ""
        virtual = "" if step.virtual_weight is None else f", weighs {step.virtual_weight:.4f}{cap}"
        print(
            f"{step.strategy:20} {step.revision:22} {step.kind:8} {step.frozen:2} frozen{virtual};"
            f" {step.at_cap} at their cap, {step.new_runs} new runs, excess {step.excess:.1e},"
            f" ratios off by {step.ratio_error:.1e}{violated}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps([asdict(step) for step in steps], indent=2) + "\n")
    if any(step.violated for step in steps):
        raise SystemExit("a constraint does not hold")


if __name__ == "__main__":
    main()
