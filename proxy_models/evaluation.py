"""Bits per byte on held-out slices and on tasks, and accuracies of tasks with choices."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from proxy_models.model.model import ScoringModel
from proxy_models.model.stacked_model import StackedDecoder
from proxy_models.text.task_file import (
    ACCURACY,
    BPB,
    PLAIN,
    MetricName,
    TaskExample,
    TaskMeasure,
    further_series,
)
from proxy_models.text.token_shard import HeldOutDocument
from proxy_models.text.tokenizer import TextTokenizer
from proxy_models.training.processes import ALONE, Processes

# Cuts scored texts into windows a model can take. Free of torch.


@dataclass(frozen=True)
class Window:
    """``tokens`` go in but the last; the last ``scored`` of them are predicted, for the document ``document``."""

    document: int
    tokens: tuple[int, ...]
    scored: int


def whole_text_windows(document: int, text: Sequence[int], end_of_text: int, length: int) -> list[Window]:
    """Windows that score every token of a text once, up to ``length`` at a time, without overlap.

    The first token is predicted from end-of-text, as in training; the first of each later window from one token.
    """
    tokens = (end_of_text, *text)
    return [
        Window(document, part, len(part) - 1)
        for start in range(0, len(text), length)
        if len(part := tokens[start : start + length + 1]) > 1
    ]


def continuation_windows(
    document: int, context: Sequence[int], continuation: Sequence[int], length: int
) -> list[Window]:
    """Windows that score every token of the continuation once, with up to ``length`` tokens going in.

    The context (not empty: end-of-text at least) is cut on the left. A continuation longer than half of ``length``
    is scored half a window at a time, so that each of its tokens has at least the other half before it.
    """
    tokens = (*context, *continuation)
    part = max(1, length // 2)
    windows = []
    for start in range(len(context), len(tokens), part):
        end = min(start + part, len(tokens))
        windows.append(Window(document, tokens[max(0, end - 1 - length) : end], end - start))
    return windows


BATCH_TOKENS = 4096
BATCH_LOGITS = 512 * 4096


@dataclass(frozen=True)
class Scored:
    """A task ready to score: its windows, and the UTF-8 bytes each document's bits are divided by.

    ``pooled``: all bits over all bytes (held-out slices, where a document is a piece of a domain); otherwise the mean
    of the documents' BPB (tasks). With a ``ranking`` every choice is a document and the BPB is that of the gold ones.
    """

    windows: tuple[Window, ...]
    document_bytes: np.ndarray
    pooled: bool
    ranking: "Ranking | None" = None

    def bits_per_byte(self, bits: np.ndarray) -> float:
        """BPB from the bits of each document, (documents,) float64."""
        if self.pooled:
            return float(bits.sum() / self.document_bytes.sum())
        each = bits / self.document_bytes
        return float(np.mean(each if self.ranking is None else each[self.ranking.gold]))

    def series(self, name: str, bits: np.ndarray) -> dict[str, float]:
        """What is measured under ``name``, and a ranked task's other metric under `further_series`."""
        values: dict[MetricName, float] = {BPB: self.bits_per_byte(bits)}
        if self.ranking is None:
            return {name: values[BPB]}
        values[ACCURACY] = self.ranking.accuracy(bits)
        measure = self.ranking.measure
        return {
            name: values[measure.metric],
            further_series(name, measure.further): values[measure.further],
        }


@dataclass(frozen=True)
class Ranking:
    """Which documents are the choices of one question.

    Attributes:
        first: (questions,) the document of each question's first choice; the others follow it.
        gold: (questions,) the document of the right one.
        lengths: (documents,) what a log-likelihood is divided by before it is ranked.
        measure: what the task's metric is.
    """

    first: np.ndarray
    gold: np.ndarray
    lengths: np.ndarray
    measure: TaskMeasure

    def accuracy(self, bits: np.ndarray) -> float:
        """Share of the questions whose right choice is the likeliest, from each document's bits, (documents,).

        A right choice that another one equals to the last bit counts as its share of those that are equal. NaN where
        any of the bits is not finite: ranking what is no number would pass a diverged model off as a bad one.
        """
        if not np.isfinite(bits).all():
            return math.nan
        scores = bits / self.lengths
        best = np.minimum.reduceat(scores, self.first)
        questions = np.repeat(np.arange(len(self.first)), np.diff([*self.first, len(scores)]))
        tied = np.add.reduceat((scores == best[questions]).astype(float), self.first)
        return float(np.mean((scores[self.gold] == best) / tied))


def held_out_task(documents: Sequence[HeldOutDocument], end_of_text: int, length: int) -> Scored:
    """The slice of a domain. BPB of pre-tokenized text uses the bytes its tokens decode to."""
    windows = [
        window
        for index, document in enumerate(documents)
        for window in whole_text_windows(index, document.tokens, end_of_text, length)
    ]
    return Scored(
        tuple(windows), np.array([document.size_bytes for document in documents], float), pooled=True
    )


def continuation_task(
    examples: Sequence[TaskExample],
    tokenizer: TextTokenizer,
    length: int,
    measure: TaskMeasure = PLAIN,
) -> Scored:
    """A task of gold continuations, or of choices.

    Context and continuation are tokenized apart, so bytes and bits agree.
    """
    contexts = tokenizer.encode_batch([example.context for example in examples])
    texts = [text for example in examples for text in example.scored]
    continuations = tokenizer.encode_batch(texts)
    before = [context for context, example in zip(contexts, examples, strict=True) for _ in example.scored]
    windows = [
        window
        for index, (context, continuation) in enumerate(zip(before, continuations, strict=True))
        for window in continuation_windows(index, (tokenizer.end_of_text, *context), continuation, length)
    ]
    document_bytes = np.array([len(text.encode()) for text in texts], float)
    ranking = None
    if examples and examples[0].choices:
        counts = [len(example.choices) for example in examples]
        first = np.cumsum([0, *counts[:-1]])
        gold = first + [example.choices.index(example.continuation) for example in examples]
        lengths = {
            "none": np.ones(len(texts)),
            "character": np.array([len(text) for text in texts], float),
            "token": np.array([len(tokens) for tokens in continuations], float),
            "byte": document_bytes,
        }
        ranking = Ranking(first, gold, lengths[measure.normalization], measure)
    return Scored(tuple(windows), document_bytes, pooled=False, ranking=ranking)


def evaluate(
    model: ScoringModel, tasks: Mapping[str, Scored], device: str = "cpu", processes: Processes = ALONE
) -> dict[str, float]:
    """What each task measures on the model (`Scored.series`): BPB, and where there are choices the accuracy too.

    Several ``processes`` that hold one model share the windows; each gets the whole answer.
    """

    def nats(tokens: Tensor, scored: Tensor) -> Tensor:
        return _token_nats(
            lambda hidden: model.logits(hidden[0])[None],
            model(tokens[:, :-1])[scored][None],
            tokens[:, 1:][scored],
            BATCH_LOGITS // model.config.vocabulary_size,
        )

    return _evaluate(nats, 1, tasks, device, processes)[0]


def evaluate_stack(
    stack: StackedDecoder, tasks: Mapping[str, Scored], device: str = "cpu"
) -> list[dict[str, float]]:
    """What each task measures on each model of the stack, all from the same windows in the same batches."""
    rows = BATCH_LOGITS // (stack.members * stack.config.vocabulary_size)

    def nats(tokens: Tensor, scored: Tensor) -> Tensor:
        hidden = stack.hidden(tokens[:, :-1].expand(stack.members, -1, -1))
        return _token_nats(stack.logits, hidden[:, scored], tokens[:, 1:][scored], rows)

    return _evaluate(nats, stack.members, tasks, device)


TokenNats = Callable[[Tensor, Tensor], Tensor]
"""From tokens (rows, L + 1) and a mask of scored targets (rows, L) to each model's nats, (N, scored)."""


def _evaluate(
    token_nats: TokenNats,
    members: int,
    tasks: Mapping[str, Scored],
    device: str,
    processes: Processes = ALONE,
) -> list[dict[str, float]]:
    """The windows of all tasks share batches of like length, padded on the right.

    Of several processes each takes every n-th batch, and one that has none left the first again: each has to pass
    through a model they have shards of as often as the others.
    """
    names = list(tasks)
    items = [(task, window) for task, name in enumerate(names) for window in tasks[name].windows]
    items.sort(key=lambda item: len(item[1].tokens))
    bits = [np.zeros((members, len(tasks[name].document_bytes))) for name in names]
    batches = _batches(items)
    for first in range(0, len(batches), processes.count):
        own = first + processes.rank
        batch = batches[own if own < len(batches) else 0]
        measured = _window_bits(token_nats, [window for _, window in batch], device, processes)
        for (task, window), window_bits in zip(batch, measured.T, strict=True):
            bits[task][:, window.document] += window_bits if own < len(batches) else 0.0
    bits = [processes.total_array(measured, device) for measured in bits]
    return [
        {
            series: value
            for name, measured in zip(names, bits, strict=True)
            for series, value in tasks[name].series(name, measured[member]).items()
        }
        for member in range(members)
    ]


def _batches(items: list[tuple[int, Window]]) -> list[list[tuple[int, Window]]]:
    """Consecutive runs whose padded size stays within `BATCH_TOKENS`; ``items`` come sorted by length."""
    batches: list[list[tuple[int, Window]]] = []
    for item in items:
        length = len(item[1].tokens)
        if not batches or (len(batches[-1]) + 1) * length > BATCH_TOKENS:
            batches.append([])
        batches[-1].append(item)
    return batches


def _window_bits(
    token_nats: TokenNats, windows: Sequence[Window], device: str, processes: Processes
) -> np.ndarray:
    """Bits of the scored tokens of each window, (N, windows); logits are computed at scored positions only."""
    length = max(len(window.tokens) for window in windows)
    tokens = np.zeros((len(windows), length), dtype=np.int64)
    scored = np.zeros((len(windows), length - 1), dtype=bool)
    for row, window in enumerate(windows):
        count = len(window.tokens)
        tokens[row, :count] = window.tokens
        scored[row, count - 1 - window.scored : count - 1] = True
    # what is fetched of other processes' shards may not be marked for inference: training fetches into it again
    with torch.inference_mode() if processes.count == 1 else torch.no_grad():
        nats = token_nats(torch.from_numpy(tokens).to(device), torch.from_numpy(scored).to(device))
        each = nats.cpu().double().numpy()
    starts = np.cumsum([0, *(window.scored for window in windows[:-1])])
    return np.add.reduceat(each, starts, axis=1) / math.log(2)


def _token_nats(logits: Callable[[Tensor], Tensor], hidden: Tensor, targets: Tensor, rows: int) -> Tensor:
    """Negative log-likelihood of each target: hidden (N, n, W), targets (n,) -> (N, n), ``rows`` of n at a time."""
    rows = max(1, rows)
    nats = [
        -torch.log_softmax(logits(part), dim=-1).gather(2, gold.expand(len(part), -1).unsqueeze(2)).squeeze(2)
        for part, gold in zip(hidden.split(rows, dim=1), targets.split(rows), strict=True)
    ]
    return torch.cat(nats, dim=1)
