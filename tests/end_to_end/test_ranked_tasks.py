"""An accuracy as the objective: real text, real training, the real supervisor; then a model out of the door."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from service.client import Client
from service.processes.serving import LocalService
from tests.end_to_end.conftest import write_jsonl

pytestmark = pytest.mark.end_to_end

Document = dict[str, Any]
DOMAINS = ("code:small", "manual")
PROXY = {"size": "nano-0.1M", "tokens": 24_576, "sequence_length": 64, "batch_rows": 4, "evaluations": 2}
RUNS = 6


def questions(examples: list[dict[str, str]]) -> list[Document]:
    """Which of two continuations, another example's beside the right one; the right one is now first, now second."""
    found = []
    for index, example in enumerate(examples):
        right, wrong = example["continuation"][:60], examples[index - 1]["continuation"][:60]
        choices = [right, wrong] if index % 2 else [wrong, right]
        found.append({"context": example["context"], "choices": choices, "gold": choices.index(right)})
    return found


def accuracy_of(folder: Path, asked: list[Any], length: int) -> float:
    """The share of right answers by plain `transformers`: log-likelihood per character, one choice at a time."""
    model, tokenizer = (
        AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(),
        AutoTokenizer.from_pretrained(folder),
    )
    right = 0
    for question in asked:
        scores = []
        for choice in question["choices"]:
            context, target = (tokenizer(text)["input_ids"] for text in (question["context"], choice))
            nats = 0.0
            part = max(1, length // 2)  # what is longer is scored half a window at a time
            tokens = [tokenizer.eos_token_id, *context, *target]
            for start in range(len(tokens) - len(target), len(tokens), part):
                end = min(start + part, len(tokens))
                window = torch.tensor([tokens[max(0, end - 1 - length) : end]])
                with torch.no_grad():
                    logits = model(window[:, :-1]).logits[0]
                each = torch.log_softmax(logits.double(), -1)[range(len(logits)), window[0, 1:]]
                nats -= float(each[-(end - start) :].sum())
            scores.append(nats / len(choice))
        right += int(np.argmin(scores)) == question["gold"]
    return right / len(asked)


def test_an_accuracy_is_maximised_and_told_as_one(
    tmp_path: Path,
    start_service: Callable[[str], LocalService],
    task_examples: list[dict[str, str]],
    eventually: Callable[..., Any],
) -> None:
    service = start_service("ranked")
    corpora = tmp_path / "ranked" / "corpora"
    asked = questions(task_examples)
    files = {name: str(corpora / f"{name.replace(':', '-')}.jsonl") for name in DOMAINS}
    quiz = write_jsonl(corpora / "quiz.jsonl", asked)
    with Client(service.url, service.token) as client:
        client.create_domain_set(
            {
                "name": "library",
                "tokenizer": {"vocabulary_size": 512},
                "held_out_fraction": 0.1,
                "evaluation_bytes": 2048,
                "domains": [{"name": name, "files": [file]} for name, file in files.items()],
            }
        )
        request = {
            "domain_set": "library",
            "method": "olmix",
            "target_tokens": 100_000,
            "proxy": PROXY,
            "runs": RUNS,
            "tasks": [
                {"name": "quiz", "path": quiz, "metric": "accuracy"},
                {"name": "smooth", "path": quiz, "weight": 0},
            ],
            "guard_rails": [{"task": "quiz", "at_least": 0.05}],
        }
        made = client.create_optimization(request)["id"]
        found = eventually(
            lambda: (one := client.optimization(made))["state"] in ("succeeded", "failed") and one,
            "the optimization has ended",
        )
        assert found["state"] == "succeeded", found["failure"]
        runs = [client.run(run["id"]) for run in client.runs(found["swarm_id"])]
        check_runs(runs, len(asked))
        check_evidence(client.mixture(found["mixture_id"])["evidence"], runs, len(asked))
        with httpx.Client(base_url=service.url, follow_redirects=True) as browser:
            form = {"token": service.token, "next": f"/optimizations/{made}"}
            page = browser.post("/login", data=form)
        assert page.status_code == httpx.codes.OK
        assert re.search(r"Gain over natural</dt><dd>\S+ accuracy <small>", page.text)
        assert f"/v1/runs/{runs[0]['id']}/model" in page.text
        client.download_model(runs[0]["id"], tmp_path / "model")
    assert accuracy_of(tmp_path / "model", asked, PROXY["sequence_length"]) == pytest.approx(
        runs[0]["metrics"]["quiz"]
    )


def check_runs(runs: list[Document], count: int) -> None:
    for run in runs:
        measured = run["metrics"]
        assert measured["quiz"] * count == pytest.approx(round(measured["quiz"] * count)), (
            "a count of answers"
        )
        assert measured["quiz"] == measured["smooth/accuracy"]
        assert measured["smooth"] == pytest.approx(measured["quiz/bpb"])
        assert measured["smooth"] > 0.5


def check_evidence(evidence: Document, runs: list[Document], count: int) -> None:
    tasks = {task["name"]: task for task in evidence["tasks"]}
    assert not [name for name in tasks if "/" in name and not name.startswith("held-out/")], "never fitted"
    quiz, objective = tasks["quiz"], evidence["objective"]
    assert (quiz["unit"], quiz["direction"], quiz["questions"]) == ("accuracy", "higher", count)
    assert (tasks["smooth"]["unit"], tasks["smooth"]["direction"]) == ("BPB", "lower")
    for told in (quiz, objective):
        assert told["unit"] == "accuracy"
        assert 0.0 < told["natural"] < 1.0
        assert told["gain"] == pytest.approx(told["proposed"] - told["natural"])
    assert objective["proposed"] == pytest.approx(quiz["proposed"])
    low = min(run["metrics"]["quiz"] for run in runs)
    assert quiz["natural"] > low - 0.3, "an accuracy, not its error rate"
    p = np.mean([run["metrics"]["quiz"] for run in runs])
    assert quiz["standard_error"] == pytest.approx(np.sqrt(p * (1 - p) / count))
