"""Reuse on real text: ``python -m benchmarks.reuse_real_text --json FILE [--data-directory DIR]``.

The demo's text, tasks, proxies and larger model, through the service: eight domains, then five updates as patches
(add 3, add 2, filter 1 again, remove 1, split 1 into 3). After each a mixture with `reuse` as it is by default and
one with ratios alone; at the end everything is recomputed, and a larger model trained on each of them and on the
natural distribution, with two seeds. It took 40 minutes on two cores with other work on them; stopped and started
again it goes on where it was.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks.reuse_text_chains import Chains, follow_chains
from benchmarks.reuse_text_domains import first_domains, updates
from benchmarks.reuse_text_report import (
    RATIOS,
    RECOMPUTE,
    REUSE,
    Document,
    chain_document,
    compared_mixtures,
    measured_document,
    recompute_document,
    shares,
    step_document,
)
from benchmarks.reuse_text_service import METHOD, Asker
from service.client import Client
from service.demo.corpora import prepare_corpora
from service.demo.demo import FULL
from service.processes.serving import LocalService

SETTINGS = replace(FULL, proxy_tokens=FULL.proxy_tokens // 2, target_tokens=FULL.target_tokens // 2)
"""The demo's, with every model trained half as long: there are many more of them."""
LAUNCH_TOKENS = SETTINGS.target_tokens // 2
"""Of the larger models, eight of them: half of what the mixtures are for, so that no domain is near its cap."""
SEEDS = (0, 1)


def result_document(chains: Chains, launches: dict[str, list[Document]], tasks: list[str]) -> Document:
    """The ``--json`` document."""
    compared = {
        REUSE: chain_document(chains.reuse),
        RATIOS: chain_document(chains.ratios),
        RECOMPUTE: recompute_document(chains),
    }
    measured = measured_document(launches, tasks)
    return {
        "method": METHOD,
        "settings": asdict(SETTINGS),
        "launch_tokens": LAUNCH_TOKENS,
        "seeds": SEEDS,
        "first_swarm": step_document(chains.first),
        "chains": compared,
        "natural": chains.recomputed.evidence["natural"],
        "measured": measured,
        "shares": shares(compared, chains.first.runs, measured),
    }


def run(data_directory: Path) -> Document:
    """All of it, with a service of its own. Raises what fetching, starting and asking raise, and BenchmarkFailed."""
    corpora = prepare_corpora(data_directory, print)
    changes = updates(corpora, data_directory / "corpora" / "updates")
    with (
        LocalService.start(data_directory, 0) as service,
        Client(service.url, service.token) as client,
    ):
        print(f"Service: {service.url}  data: {data_directory}")
        asker = Asker(client, SETTINGS, LAUNCH_TOKENS, corpora.tasks, data_directory / "plans")
        chains = follow_chains(asker, first_domains(corpora), changes)
        mixtures = compared_mixtures(chains)
        launches = asker.launched(list(mixtures.values()), SEEDS)
    return result_document(chains, dict(zip(mixtures, launches, strict=True)), sorted(corpora.tasks))


def main() -> None:
    """Print the shares and write everything."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument(
        "--data-directory",
        type=Path,
        default=Path(".mixwright/reuse-real-text"),
        help="everything it makes, to go on from",
    )
    arguments = parser.parse_args()
    result = run(arguments.data_directory.resolve())
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")
    for chain, row in result["shares"].items():
        print(_line(chain, result["chains"][chain]["runs"], row))


def _line(chain: str, runs: int, row: Document) -> str:
    by_seed = ", ".join(f"{share:.0%}" for share in row["share_of_gain_by_seed"])
    return (
        f"{chain:13} {runs:4d} runs ({row['share_of_runs']:4.0%})  gain {row['gain']:+.4f} +- {row['gain_error']:.4f}"
        f" BPB ({row['share_of_gain']:.0%}; by seed {by_seed})"
    )


if __name__ == "__main__":
    main()
