"""Examples of tasks that are trained on are those that a plain search for their n-grams finds."""

from types import SimpleNamespace
from typing import Any

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from proxy_models.text import contamination as module
from proxy_models.text.contamination import SHARE, TOKENS, contamination
from proxy_models.text.task_file import TaskExample

WORDS: Any = SimpleNamespace(
    vocabulary_size=50, encode_batch=lambda texts: [[int(word) for word in text.split()] for text in texts]
)
"""A tokenizer of numbers."""


def text(tokens: list[int]) -> str:
    return " ".join(map(str, tokens))


def shard(*documents: list[int]) -> Any:
    return SimpleNamespace(tokens=np.array([token for one in documents for token in (*one, 0)], np.uint16))


def found_by_search(context: list[int], continuation: list[int], tokens: list[int]) -> bool:
    grams = {tuple(tokens[at : at + TOKENS]) for at in range(len(tokens) - TOKENS + 1)}
    whole = [*context, *continuation]
    lies_in = [False] * len(whole)
    for at in range(len(whole) - TOKENS + 1):
        if tuple(whole[at : at + TOKENS]) in grams:
            lies_in[at : at + TOKENS] = [True] * TOKENS
    behind = lies_in[len(context) :]
    return len(whole) >= TOKENS and (
        sum(lies_in) >= SHARE * len(whole) or (len(behind) >= TOKENS and sum(behind) >= SHARE * len(behind))
    )


@given(st.randoms(use_true_random=False), st.integers(8, 60))
@settings(max_examples=60, deadline=None)
def test_an_example_counts_where_a_search_of_its_ngrams_says_so(random: Any, length: int) -> None:
    documents = [[random.randint(1, 3) for _ in range(random.randint(0, 60))] for _ in range(4)]
    tokens = [token for one in documents for token in (*one, 0)]
    cases = []
    for _ in range(6):
        begin = random.randint(0, max(0, len(tokens) - length))
        whole = [
            *tokens[begin : begin + length],
            *(random.randint(1, 3) for _ in range(random.randint(0, 30))),
        ]
        whole = [token or 1 for token in whole] or [1]
        cut = random.randint(0, len(whole) - 1)
        cases.append((whole[:cut], whole[cut:]))
    examples = [TaskExample(text(context), text(continuation)) for context, continuation in cases]
    told = contamination({"t": examples}, {"web": shard(*documents), "empty": shard([])}, WORDS)["t"]
    expected = [found_by_search(*case, tokens) for case in cases]
    assert told.domains == ({"web": sum(expected)} if any(expected) else {})
    assert (told.total, told.examples) == (sum(expected), 6)
    assert told.short == sum(len(context) + len(continuation) < TOKENS for context, continuation in cases)


def test_a_question_in_the_middle_of_a_page_is_found_across_stretches(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_STRETCH", 7)
    question, answer = list(range(1, 21)), [30, 31]
    page = [*range(40, 49), *question, *answer, *range(40, 49)]
    tasks = {
        "quoted": [
            TaskExample(text(question), text(answer)),
            TaskExample(text(question[::-1]), text(answer)),
        ],
        "clean": [TaskExample(text([*question[:12], *range(40, 49)]), "40")],
    }
    told = contamination(tasks, {"books": shard([5] * 30), "web": shard([7], page)}, WORDS)
    assert (told["quoted"].total, dict(told["quoted"].domains)) == (1, {"web": 1})
    assert told["quoted"].shown.startswith("1 2 3")
    assert (told["clean"].total, told["clean"].shown) == (0, "")


def test_an_answer_that_is_trained_on_counts_however_long_its_question_is() -> None:
    answer = list(range(1, 16))
    example = TaskExample(text([20] * 200), text(answer))
    assert contamination({"t": [example]}, {"web": shard(answer)}, WORDS)["t"].total == 1
