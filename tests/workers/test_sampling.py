"""What sampling refuses where the token counts were not known when the optimization was asked for."""

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from tokenizers import models

from mixing.errors import Infeasible
from proxy_models.errors import TokenizerError
from store.documents import OptimizationDocument, TaskDocument
from store.question import JobQuestion
from workers.jobs import sample_swarm

ASKED: dict[str, Any] = {
    "method": "olmix",
    "kl_weight": 0.0,
    "repetition_price": 0.0,
    "temperature": None,
    "recipe": {
        "sampler": "two-level-dirichlet",
        "regression": "log-linear",
        "granularity": "per task",
        "solver": "exact",
    },
    "rounds": [8],
    "seed": 0,
    "target_tokens": 1_000_000,
    "repetition_cap": 4.0,
    "strengths": [0.1, 5.0],
    "tasks": [],
    "aggregate": "mean",
    "guard_rails": [],
    "reuse": None,
    "proxy": {"tokens": 65_536},
}
TOKENS = {"books": 10_000, "code": 400_000, "web": 1_000_000}


def sampled(shares: list[dict[str, Any]]) -> list[dict[str, Any]]:
    document = OptimizationDocument.from_dict({**ASKED, "shares": shares})
    question = JobQuestion(document=document, tokens=TOKENS).to_dict()
    spec = {"question": question, "round": 0, "shards": {}, "vocabulary_size": 512}
    return sample_swarm.execute(spec, lambda progress: None)["runs"]


def share(name: str, domains: list[str], minimum: float) -> dict[str, Any]:
    return {"name": name, "domains": domains, "minimum": minimum, "maximum": None}


@pytest.mark.parametrize(
    ("shares", "names"),
    [
        ([share("prose", ["books", "web"], 0.7), share("much code", ["code"], 0.4)], {"prose", "much code"}),
        ([share("many books", ["books"], 0.1)], {"many books", "books"}),  # 4 epochs are .04
    ],
)
def test_shares_in_conflict_are_named_before_anything_is_trained(
    shares: list[dict[str, Any]], names: set[str]
) -> None:
    with pytest.raises(Infeasible) as conflict:
        sampled(shares)
    assert set(conflict.value.names) == names


def test_shares_that_agree_are_kept_by_every_run_where_they_are_of_one_domain() -> None:
    runs = sampled([share("some code", ["code"], 0.2)])
    assert len(runs) == 8
    assert min(run["weights"]["code"] for run in runs) >= 0.2 - 1e-9


def test_a_task_whose_text_the_tokenizer_loses_is_refused_before_anything_is_trained(tmp_path: Path) -> None:
    path, task = tmp_path / "tokenizer.json", tmp_path / "task.jsonl"
    vocabulary = {"[UNK]": 0, "</s>": 1, "known": 2}
    tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]")).save(str(path))
    task.write_text(json.dumps({"context": "", "continuation": "known"}) + "\n")
    asked = [TaskDocument(name="quiz", path=str(task))]
    spec = {"shards": {}, "tokenizer": str(path), "round": 0}
    assert [told["total"] for told in sample_swarm._held_against(spec, asked).values()] == [0]
    task.write_text(json.dumps({"context": "", "continuation": "你好"}) + "\n")
    with pytest.raises(TokenizerError, match=r"loses 100% of the text of task 'quiz'"):
        sample_swarm._held_against(spec, asked)
