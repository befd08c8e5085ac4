"""What a mixture somebody has in mind is predicted to be worth: how long the answer takes, asked again and again.

    python -m benchmarks.whatif [--database sqlite|postgresql] [--runs N] [--json FILE]

A pool of 64 domains and 110 tasks, whose runs are brought in tables to a real web process. The first request fits the
law and keeps what it needs; the others, each of other weights, are what somebody waits for who moves a slider.
`computed_ms` is within the computation: from the request's weights to the answer's JSON, the kept law read from its
file each time.

Held against: 20 ms within the computation, 100 ms from the client's side.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.api_databases import database_url
from benchmarks.api_web import served
from service.mixtures.evaluation import EvaluateRequest, evaluation_document
from store.schema import upgrade
from store.settings import Settings

TOKEN = "a-token-for-the-benchmark"
DOMAINS, TASKS, ASKED = 64, 110, 30


def tables(folder: Path, runs: int) -> tuple[dict[str, float], np.random.Generator]:
    """Write the runs, whose losses are exponentials of their mixtures; the tokens of each domain."""
    generator = np.random.default_rng(0)
    tokens = {f"d{index:02d}": float(10 ** generator.uniform(8, 11)) for index in range(DOMAINS)}
    natural = np.array(list(tokens.values())) / sum(tokens.values())
    weights = generator.dirichlet(40 * natural + 0.05, runs)
    losses = 1 + np.exp(weights @ generator.normal(0, 0.5, (DOMAINS, TASKS)) - 1)
    losses += generator.normal(0, 0.003, losses.shape)
    names = [f"r{index}" for index in range(runs)]
    pq.write_table(
        pa.table({"run": names, **dict(zip(tokens, weights.T, strict=True))}), folder / "w.parquet"
    )
    metrics = {f"loss/{index:03d}": column for index, column in enumerate(losses.T)}
    pq.write_table(pa.table({"run": names, **metrics}), folder / "m.parquet")
    return tokens, generator


def asked_of(client: httpx.Client, folder: Path, tokens: dict[str, float]) -> str:
    """An optimization over the runs; its id."""

    def post(address: str, body: dict[str, Any]) -> dict[str, Any]:
        response = client.post(address, json=body)
        response.raise_for_status()
        return response.json()

    domains = [{"name": name, "tokens": round(count)} for name, count in tokens.items()]
    post("/v1/domain-sets", {"name": "pool", "domains": domains})
    files = {"weights": str(folder / "w.parquet"), "metrics": str(folder / "m.parquet")}
    swarm = post("/v1/swarms", {"domain_set": "pool", "tables": files})["id"]
    asked = {"domain_set": "pool", "target_tokens": 10**11, "swarms": [swarm]}
    return post("/v1/optimizations", asked)["id"]


def _timed(ask: Callable[[dict[str, Any]], object], bodies: list[dict[str, Any]]) -> dict[str, float]:
    seconds = []
    for body in bodies:
        began = time.perf_counter()
        ask(body)
        seconds.append(time.perf_counter() - began)
    first, *others = (1000 * each for each in seconds)
    middle, most = np.percentile(others, [50, 95])
    return {"first_ms": round(first), "p50_ms": round(float(middle), 1), "p95_ms": round(float(most), 1)}


def measured(kind: str, runs: int) -> dict[str, Any]:
    """The seconds of both, over one store."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "corpora").mkdir()
        with database_url(kind, folder) as url:
            settings = Settings(data_directory=folder, database_url=url, token=TOKEN)
            upgrade(settings.resolved_database_url)
            tokens, generator = tables(folder / "corpora", runs)
            mixtures = generator.dirichlet(np.ones(DOMAINS), ASKED)
            with served(settings, 1) as web:
                headers = {"Authorization": f"Bearer {TOKEN}"}
                with httpx.Client(base_url=web.url, headers=headers, timeout=120) as client:
                    optimization = asked_of(client, folder / "corpora", tokens)
                    bodies = [
                        {
                            "optimization_id": optimization,
                            "mixtures": [{"weights": dict(zip(tokens, weights, strict=True))}],
                        }
                        for weights in mixtures.tolist()
                    ]
                    answers = _timed(
                        lambda body: client.post("/v1/mixtures:evaluate", json=body).raise_for_status(),
                        bodies,
                    )
            computed = _timed(
                lambda body: evaluation_document(settings, EvaluateRequest.model_validate(body)), bodies
            )
    return {
        "database": kind,
        "runs": runs,
        "domains": DOMAINS,
        "tasks": TASKS,
        "answered": answers,
        "computed": computed,
    }


def main() -> None:
    """Measure and print, or write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--database", choices=("sqlite", "postgresql"), default="sqlite")
    parser.add_argument("--runs", type=int, default=256)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    found = json.dumps(measured(options.database, options.runs), indent=1)
    print(found)
    if options.json:
        options.json.write_text(found + "\n")


if __name__ == "__main__":
    main()
