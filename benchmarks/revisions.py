"""Milliseconds of finding, making and carrying changes: ``python -m benchmarks.revisions [--json FILE]``.

1,000 and 10,000 domains under 50 sources, with the contents known and without: nothing changed, and a tenth of them
changed in every way there is (added, removed, revised, renamed, split, merged: a sixth each). Without contents, what
has to be asked is answered, so the time is that of two diffs. CPU milliseconds of one process, best of five. The
limit is 100 ms for 1,000 domains; a share of the limit below 1 keeps it.

`carry` is timed for 1,000 only: it is a dense matrix, which for 10,000 domains takes 800 MB.
"""

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.revision_maps import carry
from mixing.change.diff import diff
from mixing.change.lineage import RevisionNode, space_of
from mixing.change.patch import Patch, apply_patch
from mixing.change.revision import Changes, Leaf, Leaves, combined
from mixing.errors import AmbiguousChange
from mixing.question import Question
from mixing.reuse.choice import Continuation, PastRun, StartMixture, newest_domains
from mixing.reuse.plan import plan_reuse

DOMAINS = (1_000, 10_000)
CHANGED = 0.1
LIMIT = 100.0
"""Milliseconds for 1,000 domains; ten times as long for ten times as many."""
REPEATS = 5
YES = ("kept", "split", "merge", "rename")
"""The words that say a suggestion is right."""


def pool(domains: int, generator: np.random.Generator) -> dict[str, Leaf]:
    """Domains with distinct contents and counts that seldom agree; a fifth are pairs of halves of one topic."""
    leaves = {}
    for at in range(domains):
        topic = f"source{at // 2 % 50:02}:topic{at // 2:05}"
        name = f"{topic}:half{at % 2}" if at % 10 < 2 else f"{topic}{'ab'[at % 2]}"
        leaves[name] = Leaf(int(generator.integers(10**6, 10**9)), generator.bytes(32).hex())
    return leaves


def changed(old: Leaves, share: float, generator: np.random.Generator) -> Patch:
    """A patch that touches about `share` of the domains, with all six operations alike."""
    each = max(round(len(old) * share / 6), 1)
    pairs = [name.removesuffix(":half0") for name in old if name.endswith(":half0")][: max(each // 2, 1)]
    others = generator.permutation([name for name in old if ":half" not in name]).tolist()
    removed, revised, renamed, split = (others[at * each : (at + 1) * each] for at in range(4))
    return Patch(
        add={f"new{at}": leaf for at, leaf in enumerate(pool(each, generator).values())},
        remove=tuple(removed),
        revise={name: Leaf((old[name].tokens or 0) + 1, generator.bytes(32).hex()) for name in revised},
        rename={name: name.replace("topic", "subject") for name in renamed},
        split={name: halved(name, old[name], generator) for name in split},
        merge={name: (f"{name}:half0", f"{name}:half1") for name in pairs},
    )


def halved(name: str, whole: Leaf, generator: np.random.Generator) -> dict[str, Leaf]:
    """Two parts that add up, in tokens and in content."""
    tokens, content = int(whole.tokens or 0), generator.bytes(32).hex()
    rest = format((int(whole.content or "0", 16) - int(content, 16)) % (1 << 256), "064x")
    assert combined([content, rest]) == whole.content
    return {f"{name}:a": Leaf(tokens // 3, content), f"{name}:b": Leaf(tokens - tokens // 3, rest)}


def without_contents(leaves: Leaves) -> dict[str, Leaf]:
    """As a caller gives them who keeps no hashes."""
    return {name: Leaf(leaf.tokens) for name, leaf in leaves.items()}


def answered(old: Leaves, new: Leaves) -> Changes:
    """The changes, every suggestion confirmed."""
    try:
        return diff(old, new)
    except AmbiguousChange as ambiguous:
        said = {
            question.domain: next(word for word, _ in question.candidates if word in YES)
            for question in ambiguous.questions
        }
        return diff(old, new, said)


def milliseconds(call: Callable[[], Any]) -> float:
    """CPU milliseconds of the fastest repeat."""
    best = np.inf
    for _ in range(REPEATS):
        start = time.process_time()
        call()
        best = min(best, (time.process_time() - start) * 1e3)
    return best


RUNS = 300
"""Older runs a plan looks at."""


def continuation_of(
    lineage: Sequence[RevisionNode], old: Leaves, generator: np.random.Generator
) -> Continuation:
    """A plan for the second revision, with `RUNS` runs of the first."""
    names, space = sorted(old), space_of(lineage, "2")
    drawn = generator.dirichlet(np.full(len(names), 0.3), RUNS).tolist()
    runs = [dict(zip(names, row, strict=True)) for row in drawn]
    return Continuation(
        Question(domains=newest_domains(space), objective={"task": 1.0}, target_tokens=1e12),
        space,
        tuple(PastRun(f"run {n}", "1", run, ("task",), None, 0) for n, run in enumerate(runs)),
        StartMixture("in use", "1", runs[0]),
    )


def measured(domains: int, share: float) -> dict[str, Any]:
    """One row of the table."""
    generator = np.random.default_rng(domains)
    old = pool(domains, generator)
    patch = changed(old, share, generator) if share else Patch()
    new, changes = apply_patch(old, patch)
    assert diff(old, new) == changes
    bare_old, bare_new = without_contents(old), without_contents(new)
    calls: dict[str, Callable[[], Any]] = {
        "diff": lambda: diff(old, new),
        "diff_without_contents": lambda: answered(bare_old, bare_new),
        "apply_patch": lambda: apply_patch(old, patch),
    }
    if domains <= DOMAINS[0]:
        calls["carry"] = lambda: carry(changes, old, new)
        lineage = [RevisionNode("1", old), RevisionNode("2", new, "1", changes)]
        calls["contents"] = lambda: space_of(lineage, "2")
        continuation = continuation_of(lineage, old, generator)
        calls["plan"] = lambda: plan_reuse(continuation)
    limit = LIMIT * domains / DOMAINS[0]
    times = {name: milliseconds(call) for name, call in calls.items()}
    return {
        "domains": domains,
        "changed": share,
        "changes": {name: len(value) for name, value in changes.to_dict().items()},
        "milliseconds": {name: round(value, 3) for name, value in times.items()},
        "share_of_limit": {name: round(value / limit, 4) for name, value in times.items()},
    }


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    rows = []
    for domains in DOMAINS:
        for share in (0.0, CHANGED):
            rows.append(measured(domains, share))
            print(rows[-1], flush=True)
    if arguments.json:
        result = {"limit_milliseconds": LIMIT, "limit_domains": DOMAINS[0], "rows": rows}
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
