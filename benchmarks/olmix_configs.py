"""Olmix's case study as a chain of revisions: ``python -m benchmarks.olmix_configs --data DIR``.

Reads the configurations that Olmix (arXiv 2602.12237) publishes for the five updates of its case study: 24 topics of
DCLM; 15 languages of Stack-Edu added; six sources added; the PDFs revised; one source removed, which no file is
about, but by whose tokens everything else shrinks; the PDFs partitioned into 21 topics.

Prints every revision with its changes, what was noted while reading, and whether what the files say of one another
adds up.
"""

import argparse
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.olmix_file import OlmixConfigError, OlmixFile, Section
from mixing.change.diff import diff
from mixing.change.revision import Changes, Leaf, Leaves

DCLM, STACK_EDU, MORE_SOURCES, REVISED_PDFS, PARTITIONED_PDFS = FILES = (
    "0_dclm.yaml",
    "1_add_stackedu.yaml",
    "2_add_more_sources.yaml",
    "3_revise_pdfs.yaml",
    "5_partition_pdfs.yaml",
)
KNOWN_MISPLACED: Mapping[str, frozenset[str]] = {STACK_EDU: frozenset({"token_counts"})}
"""Sections that a published file has in the wrong place; `case_study` reads them where they stand, with a note."""
VIRTUAL = ("dclm", "existing")
"""What the files call the domains of earlier steps, frozen and taken as one."""
SIZES_TOLERANCE = 1e-6

Revision = tuple[str, Leaves, Changes]
"""Its name, its domains, and what changed from the one before."""


@dataclass(frozen=True)
class OlmixConfig:
    """What one configuration says about domains and their limits.

    Attributes:
        name: of the file, without its ending.
        tokens: N_j by domain.
        relative_sizes: the prior by domain, as given; the natural distribution need not be it.
        target_tokens: R.
        repetition_factor: k.
        kl: weight of the KL term, None where there is none.
        drop_metrics: names of the metrics left out.
        regression: kind of the regression, None where none is fitted.
        notes: what is odd, each with file and line.
    """

    name: str
    tokens: Mapping[str, int]
    relative_sizes: Mapping[str, float]
    target_tokens: int
    repetition_factor: float
    kl: float | None
    drop_metrics: tuple[str, ...]
    regression: str | None
    notes: tuple[str, ...]

    @property
    def affected(self) -> dict[str, Leaf]:
        """The domains that are not frozen into one."""
        return {name: Leaf(count) for name, count in self.tokens.items() if name not in VIRTUAL}

    @property
    def total(self) -> int:
        """Tokens of all domains."""
        return sum(self.tokens.values())


def read_config(path: Path, accept_misplaced: frozenset[str] = frozenset()) -> OlmixConfig:
    """A configuration, checked.

    `regression: {type: search}` is no fault: with it Olmix fits nothing and looks up the runs it has trained, so the
    regression is None here and a note says where that stands.

    Args:
        path: of the YAML file.
        accept_misplaced: sections to read from the top level where they stand there by mistake.

    Raises:
        OlmixConfigError: with file and line: no YAML, a section in the wrong place, twice, missing or unknown, or a
            value that is not what it should be.
    """
    file = OlmixFile.read(path, accept_misplaced)
    priors, constraints = file.section("priors"), file.section("constraints")
    tokens = {name: entry.positive_integer() for name, entry in priors.mapping("token_counts").items()}
    sizes = {name: entry.number() for name, entry in priors.mapping("relative_sizes").items()}
    _check_sizes(priors, tokens, sizes)
    kl = file.section("proposer").entry("kl_reg")
    kind = file.section("regression").entry("type")
    regression = kind.text()
    if regression == "search":
        file.note(
            kind.line, "regression.type is 'search': no regression is fitted, measured runs are looked up"
        )
    return OlmixConfig(
        name=path.stem,
        tokens=tokens,
        relative_sizes=sizes,
        target_tokens=constraints.entry("target_tokens").positive_integer(),
        repetition_factor=constraints.entry("repetition_factor").number(),
        kl=None if kl.is_null else kl.number(),
        drop_metrics=file.section("filtering").entry("drop_metrics").texts(),
        regression=None if regression == "search" else regression,
        notes=tuple(file.notes),
    )


def _check_sizes(priors: Section, tokens: Mapping[str, int], sizes: Mapping[str, float]) -> None:
    if odd := sorted(set(tokens) ^ set(sizes)):
        raise priors.error(f"relative_sizes and token_counts name different domains: {', '.join(odd)}")
    if abs(sum(sizes.values()) - 1) > SIZES_TOLERANCE:
        raise priors.error(f"relative_sizes sum to {sum(sizes.values()):.9g}, not 1")


def read_case_study(directory: Path) -> dict[str, OlmixConfig]:
    """`{file: configuration}` of the five files, in order.

    Raises:
        OlmixConfigError: as `read_config`, or a file is missing.
    """
    return {file: read_config(directory / file, KNOWN_MISPLACED.get(file, frozenset())) for file in FILES}


def case_study(directory: Path) -> tuple[Revision, ...]:
    """The six revisions, from the 24 topics of DCLM on; the first one's changes are that all of it is new.

    No file holds hashes, so names and counts decide, and two things have to be said: that the second edition of the
    PDFs takes the place of the first with another text, though its count is the same; and that the topics are
    separate from the PDFs before them, because they do not add up to them.

    Raises:
        OlmixConfigError: as `read_case_study`, or no single domain explains what is gone before the partition.
    """
    configs = read_case_study(directory)
    old_pdfs, new_pdfs = editions_of_pdfs(configs)
    removed = removed_before_partition(configs)
    dclm: Leaves = {f"dclm:{topic}": Leaf(count) for topic, count in configs[DCLM].tokens.items()}
    stack = {**dclm, **configs[STACK_EDU].affected}
    sources = {**stack, **configs[MORE_SOURCES].affected}
    revised = {**_without(sources, old_pdfs), **configs[REVISED_PDFS].affected}
    fewer = _without(revised, removed)
    partitioned = {**_without(fewer, new_pdfs), **configs[PARTITIONED_PDFS].affected}
    steps = (
        ("dclm", dclm, {}),
        ("add_stackedu", stack, {}),
        ("add_more_sources", sources, {}),
        ("revise_pdfs", revised, {new_pdfs: "revised"}),
        (f"remove_{removed}", fewer, {}),
        ("partition_pdfs", partitioned, {new_pdfs: "separate"}),
    )
    before: Leaves = {}
    chain: list[Revision] = []
    for name, leaves, said in steps:
        chain.append((name, leaves, diff(before, leaves, said)))
        before = leaves
    return tuple(chain)


def editions_of_pdfs(configs: Mapping[str, OlmixConfig]) -> tuple[str, str]:
    """What the PDFs are called before and after their revision.

    Raises:
        OlmixConfigError: the revision is not of one domain, or none of the sources before is so called.
    """
    after = tuple(configs[REVISED_PDFS].affected)
    before = tuple(name for name in configs[MORE_SOURCES].affected if name.startswith("s2pdf"))
    if len(before) != 1 or len(after) != 1:
        raise OlmixConfigError(
            REVISED_PDFS, None, f"revises {before or 'nothing'} to {after}, not one domain"
        )
    return before[0], after[0]


def removed_before_partition(configs: Mapping[str, OlmixConfig]) -> str:
    """The source whose tokens `existing` lacks between the revision of the PDFs and their partition.

    Raises:
        OlmixConfigError: it is not exactly one.
    """
    gone = configs[REVISED_PDFS].tokens["existing"] - configs[PARTITIONED_PDFS].tokens["existing"]
    named = configs[STACK_EDU].affected | configs[MORE_SOURCES].affected
    found = [name for name, leaf in named.items() if leaf.tokens == gone]
    if len(found) != 1:
        raise OlmixConfigError(
            PARTITIONED_PDFS,
            None,
            f"existing lacks {gone:,} tokens, which are those of {found or 'no source'}",
        )
    return found[0]


def _without(leaves: Leaves, name: str) -> dict[str, Leaf]:
    return {other: leaf for other, leaf in leaves.items() if other != name}


@dataclass(frozen=True)
class Invariant:
    """Two counts of the same tokens."""

    what: str
    stated: int
    computed: int

    @property
    def gap(self) -> int:
        """Stated less computed."""
        return self.stated - self.computed


def invariants(configs: Mapping[str, OlmixConfig]) -> tuple[Invariant, ...]:
    """What each file says of all earlier domains together, beside what the earlier files add up to."""
    old_pdfs, new_pdfs = editions_of_pdfs(configs)
    removed = removed_before_partition(configs)
    removed_tokens = {**configs[STACK_EDU].tokens, **configs[MORE_SOURCES].tokens}[removed]
    existing = {file: configs[file].tokens["existing"] for file in FILES[2:]}
    parts = configs[PARTITIONED_PDFS].total - existing[PARTITIONED_PDFS]
    return (
        Invariant(f"dclm in {STACK_EDU}: all topics", configs[STACK_EDU].tokens["dclm"], configs[DCLM].total),
        Invariant(
            f"existing in {MORE_SOURCES}: all before", existing[MORE_SOURCES], configs[STACK_EDU].total
        ),
        Invariant(
            f"existing in {REVISED_PDFS}: all before but {old_pdfs}",
            existing[REVISED_PDFS],
            configs[MORE_SOURCES].total - configs[MORE_SOURCES].tokens[old_pdfs],
        ),
        Invariant(
            f"existing in {PARTITIONED_PDFS}: all before but {new_pdfs} and {removed}",
            existing[PARTITIONED_PDFS],
            configs[REVISED_PDFS].total - configs[REVISED_PDFS].tokens[new_pdfs] - removed_tokens,
        ),
        Invariant(f"{new_pdfs} in {REVISED_PDFS}: its topics", configs[REVISED_PDFS].tokens[new_pdfs], parts),
    )


def main() -> None:
    """Print the chain, the notes and the invariants."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="the folder of the configurations")
    directory = parser.parse_args().data
    configs = read_case_study(directory)
    for name, leaves, changes in case_study(directory):
        found = ", ".join(f"{len(value)} {what}" for what, value in changes.to_dict().items() if value)
        print(
            f"{name}: {len(leaves)} domains, {sum(leaf.tokens or 0 for leaf in leaves.values()):,} tokens; {found}"
        )
    for config in configs.values():
        for note in config.notes:
            print(f"note: {note}")
    for invariant in invariants(configs):
        print(f"{invariant.what}: {invariant.stated:,} against {invariant.computed:,}, {invariant.gap:+,}")


if __name__ == "__main__":
    main()
