"""The domains change and the old runs still count: on real text, with real training, and a worker killed."""

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from service.client import Client
from service.processes.serving import LocalService
from tests.end_to_end.conftest import pieces, write_jsonl
from tests.end_to_end.test_kill import processes_running

pytestmark = pytest.mark.end_to_end

Document = dict[str, Any]
ENDED = ("succeeded", "failed", "cancelled")
PROXY = {"size": "nano-0.1M", "tokens": 16_384, "sequence_length": 64, "batch_rows": 4, "evaluations": 2}
TARGET, CAP = 200_000, 4.0
SET = "pool"


def domain(name: str, *files: Path) -> Document:
    return {"name": name, "files": [str(file) for file in files]}


@pytest.fixture
def corpora(tmp_path: Path) -> Path:
    return tmp_path / "reuse" / "corpora"


def split_in_two(path: Path) -> list[Path]:
    """Two files with every second document of one."""
    lines = path.read_text().splitlines(keepends=True)
    parts = [path.with_name(f"{path.stem}-{index}.jsonl") for index in range(2)]
    for index, part in enumerate(parts):
        part.write_text("".join(lines[index::2]))
    return parts


def question(**further: Any) -> Document:
    """An optimization of the latest revision, the same whenever asked."""
    asked = {
        "domain_set": SET,
        "method": "mixwright",
        "target_tokens": TARGET,
        "repetition_cap": CAP,
        "seed": 3,
    }
    return {**asked, "proxy": PROXY, **further}


def prepared(client: Client) -> bool:
    """Whether the latest revision is counted."""
    revision = client.revision(SET)
    assert revision["state"] not in ("failed", "cancelled"), revision["failure"]
    return revision["state"] == "succeeded"


def solved(client: Client, optimization_id: str) -> Document | None:
    found = client.optimization(optimization_id)
    if found["state"] not in ENDED:
        return None
    assert found["state"] == "succeeded", found["failure"]
    return found


def written_at(data: Path) -> dict[str, int]:
    """Shard -> when its tokens were written."""
    return {
        path.parent.name: path.stat().st_mtime_ns
        for path in (data / "artifacts" / "shards").glob("*/tokens.bin")
    }


def test_what_is_known_is_not_bought_again(
    tmp_path: Path,
    corpora: Path,
    start_service: Callable[[str], LocalService],
    library_text: dict[str, str],
    eventually: Callable[..., Any],
) -> None:
    service = start_service("reuse")
    files = {name: corpora / f"{name.replace(':', '-')}.jsonl" for name in library_text}
    with Client(service.url, service.token) as client:
        client.create_domain_set(
            {
                "name": SET,
                "tokenizer": {"vocabulary_size": 512},
                "held_out_fraction": 0.1,
                "evaluation_bytes": 2048,
                "domains": [domain(name, file) for name, file in files.items()],
            }
        )
        first = client.create_optimization(question(runs=len(files) + 6))["id"]
        first = eventually(lambda: solved(client, first), "the first mixture")
        old_runs = {run["id"] for run in client.runs(first["swarm_id"])}
        shards = written_at(tmp_path / "reuse")

        new = corpora / "new.jsonl"
        write_jsonl(new, pieces(library_text["manual"].swapcase()))
        parts = split_in_two(files["code:small"])
        revised = corpora / "tables-2.jsonl"
        write_jsonl(revised, pieces(library_text["code:tables"][: len(library_text["code:tables"]) // 2]))
        patch = {
            "add": [domain("shouting", new)],
            "revise": [domain("code:tables", revised)],
            "split": [
                {
                    "domain": "code:small",
                    "into": [domain(f"code:small-{index}", part) for index, part in enumerate(parts)],
                }
            ],
        }
        planned = client.plan_revision(SET, {"patch": patch})["changes"]
        assert planned["split"] == {"code:small": ["code:small-0", "code:small-1"]}
        client.create_revision(SET, {"patch": patch})
        eventually(lambda: prepared(client), "the counts of revision 2")
        changes = client.revision(SET)["changes"]
        assert set(changes["confirmed"].values()) == {True}, changes
        assert changes["split"] == planned["split"]
        assert changes["revised"] == ["code:tables"]
        after = written_at(tmp_path / "reuse")
        assert {shard: after[shard] for shard in shards} == shards, "an unchanged domain was tokenized again"
        assert len(after) == len(shards) + 4

        plan = client.plan_optimization(question(reuse="full"))
        assert set(plan["plan"]["reused"]) == old_runs
        assert plan["plan"]["new_runs"] < plan["plan"]["recompute_runs"]
        assert plan["hours"]["new"] < plan["hours"]["recompute"]
        assert plan["mixture_id"] == first["mixture_id"]

        second = client.create_optimization(question(reuse="full"))
        assert second["settings"]["reuse"]["plan"] == plan["plan"]
        running = eventually(
            lambda: (
                client.optimization(second["id"])["progress"]["runs"]["running"]
                and processes_running(service, "workers.execution.child")
            ),
            "a run under way",
        )
        running[0].send_signal(signal.SIGKILL)
        second = eventually(lambda: solved(client, second["id"]), "the second mixture")
        assert second["progress"]["runs"]["total"] == plan["plan"]["new_runs"]
        check_mixture(client, first, second, plan["plan"])
        check_lineage(client.lineage(second["mixture_id"]), first, second, old_runs)


def check_mixture(client: Client, first: Document, second: Document, plan: Document) -> None:
    """Frozen ratios are those of the first mixture, no domain is over its cap, and the older runs were fitted."""
    before = client.mixture(first["mixture_id"])["weights"]
    after = client.mixture(second["mixture_id"])
    assert sum(after["weights"].values()) == pytest.approx(1.0)
    for one in client.revision(SET)["domains"]:
        assert after["weights"][one["name"]] <= CAP * one["tokens"] / TARGET + 1e-9
    for ratios in plan["groups"].values():
        names = sorted(ratios)
        kept = sum(after["weights"][name] for name in names)
        assert [after["weights"][name] / kept for name in names] == pytest.approx(
            [before[name] / sum(before[other] for other in names) for name in names], abs=1e-6
        )
    assert after["evidence"]["reuse"]["older_runs"] == len(plan["reused"])
    assert after["evidence"]["coupling"]


def check_lineage(lineage: Document, first: Document, second: Document, old_runs: set[str]) -> None:
    """Every run down to the first revision's is there, with whether it counted and why."""
    assert [one["number"] for one in lineage["revisions"]] == [2, 1]
    assert [start["mixture"]["id"] for start in lineage["starts"]] == [first["mixture_id"]]
    newest, oldest = lineage["revisions"]
    assert {row["domain"]: row["change"] for row in newest["map"]} == {
        "code:tables": "revised",
        "code:small-0": "split",
        "code:small-1": "split",
        "shouting": "added",
    }
    shares = [row["comes_from"]["code:small"] for row in newest["map"] if row["change"] == "split"]
    assert sum(shares) == pytest.approx(1.0)
    (earlier,) = oldest["optimizations"]
    assert {run["id"] for run in earlier["runs"] if run["counted"]} == old_runs
    assert all("revision 1" in run["why"] for run in earlier["runs"])
    (own,) = newest["optimizations"]
    assert own["id"] == second["id"]
    assert all(run["counted"] for run in own["runs"])
