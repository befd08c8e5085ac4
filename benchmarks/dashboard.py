"""How fast the dashboard is, and how much it sends: ``python -m benchmarks.dashboard [--json FILE]``.

A real web process over SQLite and a real Chromium, which has to be on PATH. Runs of a known line, brought to domain
sets of 64 and of 512 domains, are solved for; an optimization of 10,000 runs lies in a store of its own.

- javascript_bytes: of all scripts, as they are.
- largest_page_bytes: as sent to a browser, of the pages of 512 domains and of 10,000 runs; raw_page_bytes unpacked.
- first_paint_ms: first contentful paint of an optimization of 64 domains, the median of `TIMES`.
- ten_thousand_runs_page_ms: from asking for the table of runs, the best first, to its last byte, likewise.
- what_if_ms: from a moved weight among 64 to the whole answer, likewise; the first, which fits, is left out.
"""

import argparse
import gzip
import json
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np

from benchmarks.api_store import Sizes, fill
from benchmarks.api_web import served
from service.client import Client
from store import jobs
from store.engine import Database
from store.schema import upgrade
from store.settings import Settings
from store.tables import Job
from workers.claims.claim import claim, finish
from workers.jobs import solve
from workers.pipeline import settle, tick

TIMES = 9
TASKS = 12
TOKEN = "a-token-for-the-benchmark"
STATIC = Path(__file__).parents[1] / "service" / "dashboard" / "static"


def main() -> None:
    """Measure, print, and write where asked."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        result = measure(Path(name))
    print(json.dumps(result, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=2) + "\n")


def measure(data: Path) -> dict[str, Any]:
    """Everything, over a store in a folder of its own."""
    settings = Settings(data_directory=data, token=TOKEN)
    upgrade(settings.resolved_database_url)
    database = Database(settings.resolved_database_url)
    runs = fill(database, Sizes(runs=10_000, optimizations=1, domain_sets=1)).optimizations[0]
    with served(settings, workers=1) as web, httpx.Client(base_url=web.url, timeout=600) as browser:
        solved = {count: solved_over(count, web.url, database, settings) for count in (64, 512)}
        browser.headers["Authorization"] = f"Bearer {TOKEN}"
        table = f"/optimizations/{runs}/runs?sort=objective"
        question = f"/optimizations/{solved[64]}/what-if/answer?start=proposed&w:web:000="
        browser.get(f"{question}1").raise_for_status()
        what_if = timed(lambda time: browser.get(f"{question}{time + 2}").raise_for_status())
        ten_thousand = timed(lambda _: browser.get(table).raise_for_status())
        pages = (
            *(f"/optimizations/{solved[512]}{rest}" for rest in ("", "/what-if?b:natural=on")),
            f"/domain-sets/wide-{512}",
            table,
            f"/optimizations/{runs}",
            "/",
        )
        sent = {
            path.replace(solved[512], "512").replace(runs, "runs"): page_bytes(browser, path)
            for path in pages
        }
        paint = first_paint_ms(web.url, f"/optimizations/{solved[64]}")
    database.close()
    return {
        "javascript_bytes": sum(file.stat().st_size for file in STATIC.glob("*.js")),
        "largest_page_bytes": max(size for size, _ in sent.values()),
        "raw_page_bytes": {path: raw for path, (_, raw) in sent.items()},
        "first_paint_ms": paint,
        "ten_thousand_runs_page_ms": ten_thousand,
        "what_if_ms": what_if,
    }


def timed(once: Callable[[int], object]) -> float:
    """Milliseconds, the median of `TIMES`."""
    took = []
    for number in range(TIMES):
        began = time.perf_counter()
        once(number)
        took.append(1000 * (time.perf_counter() - began))
    return round(statistics.median(took), 1)


def page_bytes(browser: httpx.Client, path: str) -> tuple[int, int]:
    """As sent, and unpacked."""
    with browser.stream("GET", path) as answer:
        sent = b"".join(answer.iter_raw())
    answer.raise_for_status()
    is_packed = answer.headers.get("content-encoding") == "gzip"
    return len(sent), len(gzip.decompress(sent) if is_packed else sent)


def solved_over(count: int, url: str, database: Database, settings: Settings) -> str:
    """An optimization over so many domains, solved as a worker would by runs that were brought; its id."""
    generator = np.random.default_rng(count)
    names = [f"{('web', 'code', 'books', 'papers')[index % 4]}:{index:03d}" for index in range(count)]
    tokens = generator.integers(10**9, 10**11, count)
    domains = [{"name": name, "tokens": int(size)} for name, size in zip(names, tokens, strict=True)]
    slopes = generator.gamma(1.0, 1.0, (count, TASKS))
    drawn = generator.dirichlet(np.full(count, 0.5), count + 60)
    measured = 3 - np.log1p(drawn @ slopes) + 0.005 * generator.standard_normal((count + 60, TASKS))
    with Client(url, TOKEN) as client:
        client.create_domain_set({"name": f"wide-{count}", "domains": domains})
        runs = [
            {
                "id": f"run-{number}",
                "weights": dict(zip(names, weights.tolist(), strict=True)),
                "metrics": {f"task-{task:02d}": float(value) for task, value in enumerate(row)},
            }
            for number, (weights, row) in enumerate(zip(drawn, measured, strict=True))
        ]
        swarm = client.create_swarm({"domain_set": f"wide-{count}", "runs": runs[:20]})["id"]
        for first in range(20, len(runs), 20):
            results = [{"run": run.pop("id"), **run} for run in runs[first : first + 20]]
            client.add_results(swarm, results)
        asked = {
            "domain_set": f"wide-{count}",
            "target_tokens": 10**11,
            "swarms": [swarm],
            "regression": "linear",
        }
        made = client.create_optimization(asked)["id"]
    tick(database)
    claimed = claim(database, "benchmark", 600.0, [jobs.SOLVE])
    if claimed is None:
        raise RuntimeError("nothing is to be solved")
    with database.read() as session:
        spec = solve.describe(session, session.get_one(Job, claimed.job_id), settings)
    answer = solve.execute(spec, lambda _: None)

    def store(session: Any, job: Job) -> None:
        solve.store(session, job, answer)

    finish(database, claimed, store)
    with database.write() as session:
        settle(session, session.get_one(Job, claimed.job_id))
    return made


def first_paint_ms(url: str, path: str) -> float:
    """First contentful paint of a page that is opened again and again, in milliseconds."""
    from playwright.sync_api import sync_playwright

    executable = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        page = chromium.new_page(base_url=url)
        page.goto("/login")
        page.fill("#token", TOKEN)
        page.click("main button[type=submit]")
        took = []
        for _ in range(TIMES):
            page.goto(path)
            page.wait_for_function("() => performance.getEntriesByName('first-contentful-paint').length > 0")
            script = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
            took.append(float(page.evaluate(script)))
        chromium.close()
    return round(statistics.median(took), 1)


if __name__ == "__main__":
    main()
