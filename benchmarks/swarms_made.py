"""Swarms of real proxies that are unlike RegMix:
``python -m benchmarks.swarms_made --data DIR --out benchmarks/swarms [--swarm NAME]``.

Four swarms of `nano-0.1M`, trained by the product's own trainer on real text (`benchmarks.swarms_text`):

- `contrary-short` and `contrary-long`: the same wide Dirichlet draws over 8 domains, one of which teaches the wrong
  order of words, at two lengths;
- `repeated`: draws around the natural distribution of 13 small domains, most of which a run sees several times;
- `topics`: the D-optimal draws of the default method over 30 topics.

DIR keeps the packages, the text and the shards; nothing of them goes to `--out`. There each swarm is a table of a row
a run (columns `weight DOMAIN` and metrics, 6 significant digits) and a JSON file of its domains' tokens and of what
its metrics are: BPB of held-out slices and of tasks, and accuracies. The first run is of the natural distribution.

Each wave is added to the table when it is trained, those of all swarms in turn; started again it goes on with the
next. On one thread, the four take about an hour of a core that is shared; the same command gives the same mixtures
anywhere, and metrics that differ as processors do.
"""

import argparse
import csv
import json
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from benchmarks.swarms_text import CONTRARY, FINE, REPEATED, Part, swarm_sources, write_pool, write_tasks
from mixing.domains import Domains, Mixture
from mixing.methods import METHODS, combine
from mixing.question import Question
from mixing.swarm.sample import sample_round
from proxy_models.config import TrainingConfig
from proxy_models.text.preparation import PreparationSpec, prepare_domain, training_sample
from proxy_models.text.task_file import ACCURACY, BPB, TaskMeasure, read_task
from proxy_models.text.token_shard import TokenShard
from proxy_models.text.tokenizer import TextTokenizer, train_byte_level_bpe
from proxy_models.training.run_spec import HELD_OUT_PREFIX, RunSpec, TaskSpec
from proxy_models.training.wave import train_wave
from service.demo.corpora import prepare_corpora

SIZE, VOCABULARY = "nano-0.1M", 1024
"""A small vocabulary: a head of 4,096 tokens would be seven tenths of the work."""
BATCH_ROWS, SEQUENCE_LENGTH = 8, 64
TOKENIZER_BYTES = 3_000_000
WAVE = 8
SEED = 0


@dataclass(frozen=True)
class Swarm:
    """One swarm: its pool, how its mixtures are drawn, and how long its runs train.

    Attributes:
        pool: what its domains are cut from.
        sampler: by its name in the catalogue.
        strengths: lowest and highest of the Dirichlet draws.
        runs: how many, the natural distribution among them.
        tokens: that each run trains.
        held_out: share of a domain's text.
        evaluated_bytes: of each held-out slice.
    """

    pool: Mapping[str, Part]
    sampler: str
    strengths: tuple[float, float]
    runs: int
    tokens: int
    held_out: float
    evaluated_bytes: int

    @property
    def training(self) -> TrainingConfig:
        """How a run is trained: on the same order of rows in each."""
        return TrainingConfig(self.tokens, SEQUENCE_LENGTH, BATCH_ROWS, seed=SEED, evaluations=1)


_WIDE = ("tempered-dirichlet", (0.5, 10.0))

SWARMS: Mapping[str, Swarm] = {
    "contrary-short": Swarm(CONTRARY, *_WIDE, runs=121, tokens=49_152, held_out=0.05, evaluated_bytes=4096),
    "contrary-long": Swarm(CONTRARY, *_WIDE, runs=121, tokens=147_456, held_out=0.05, evaluated_bytes=4096),
    "repeated": Swarm(REPEATED, "two-level-dirichlet", (1.0, 10.0), 121, 81_920, 0.15, 4096),
    "topics": Swarm(FINE, "d-optimal", (0.5, 10.0), 137, 81_920, 0.1, 2048),
}


@dataclass(frozen=True)
class Prepared:
    """A swarm whose text is on disk as tokens."""

    name: str
    swarm: Swarm
    shards: Mapping[str, Path]
    tokenizer: Path
    tasks: tuple[TaskSpec, ...]
    scratch: Path
    out: Path

    @cached_property
    def domains(self) -> Domains:
        """With their training tokens."""
        return Domains.of({name: TokenShard.open(path).meta.tokens for name, path in self.shards.items()})

    @cached_property
    def mixtures(self) -> list[Mixture]:
        """The natural distribution, then the sampler's draws, which depend on the tokens alone."""
        swarm = self.swarm
        question = Question(
            domains=self.domains,
            target_tokens=1.0,
            repetition_cap=None,
            rounds=(swarm.runs - 1,),
            strengths=swarm.strengths,
            seed=SEED,
            recipe=combine(METHODS["mixwright"], sampler=swarm.sampler),
        )
        return [self.domains.natural(), *(run.mixture for run in sample_round(question))]

    @property
    def table(self) -> Path:
        """Where its runs are kept."""
        return self.out / f"{self.name}.csv"

    def done(self) -> int:
        """Runs in the table; they are trained in their order."""
        return len(self.table.read_text().splitlines()) - 1 if self.table.exists() else 0

    def spec(self, run: int) -> RunSpec:
        """The order for one run."""
        return RunSpec(
            size=SIZE,
            mixture=self.mixtures[run],
            shards=self.shards,
            directory=self.scratch / f"{run:03}",
            training=self.swarm.training,
            vocabulary_size=VOCABULARY,
            tokenizer=str(self.tokenizer),
            tasks=self.tasks,
        )

    def train(self, runs: range) -> None:
        """Train a wave and add it to the table. Raises the error of a run that failed."""
        rows = []
        for run, outcome in zip(runs, train_wave([self.spec(run) for run in runs]), strict=True):
            if isinstance(outcome, Exception):
                raise outcome
            weights = {f"weight {name}": weight for name, weight in self.mixtures[run].items()}
            rows.append({**weights, **dict(sorted(outcome.final.items()))})
        new = not self.table.exists()
        with self.table.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
            if new:
                writer.writeheader()
            writer.writerows({name: f"{value:.6g}" for name, value in row.items()} for row in rows)
        shutil.rmtree(self.scratch)

    def write_description(self) -> None:
        """The JSON beside the table: what the numbers are of."""
        swarm = self.swarm
        metrics: dict[str, dict[str, str | int]] = {
            HELD_OUT_PREFIX + name: {"metric": BPB, "direction": "lower"} for name in self.shards
        }
        for task in self.tasks:
            accuracy = task.measure.metric == ACCURACY
            metrics[task.name] = {
                "metric": task.measure.metric,
                "direction": "higher" if accuracy else "lower",
                "questions": len(read_task(task.path, task.measure.metric)),
            }
        description = {
            "size": SIZE,
            "vocabulary": VOCABULARY,
            "tokens": swarm.tokens,
            "sampler": swarm.sampler,
            "strengths": swarm.strengths,
            "seed": SEED,
            "domains": dict(zip(self.domains.names, map(int, self.domains.tokens), strict=True)),
            "metrics": metrics,
        }
        self.table.with_suffix(".json").write_text(json.dumps(description, indent=1) + "\n")


def prepare(names: list[str], data: Path, out: Path) -> Iterator[Prepared]:
    """The swarms of these names, their text fetched, cut and tokenized where it is not yet."""
    corpora = prepare_corpora(data, print, swarm_sources())
    answers, choices = write_tasks(corpora, data / "tasks")
    tasks = (
        *(TaskSpec(name, path) for name, path in answers.items()),
        *(TaskSpec(name, path, TaskMeasure(ACCURACY)) for name, path in choices.items()),
    )
    tokenizer_file = data / "tokenizer.json"
    texts = tuple(corpora.domains.values())
    tokenizer = train_byte_level_bpe(
        training_sample(texts, 0.05, TOKENIZER_BYTES), VOCABULARY, tokenizer_file
    )
    for name in names:
        swarm = SWARMS[name]
        files = write_pool(corpora, swarm.pool, data / "text" / name.split("-")[0])
        shards = {domain: _shard(domain, path, tokenizer, swarm, data) for domain, path in files.items()}
        yield Prepared(name, swarm, shards, tokenizer_file, tasks, data / "runs" / name, out)


def _shard(domain: str, path: Path, tokenizer: TextTokenizer, swarm: Swarm, data: Path) -> Path:
    return prepare_domain(
        PreparationSpec(domain, (path,), tokenizer, data / "shards", swarm.held_out, swarm.evaluated_bytes)
    ).directory


def main() -> None:
    """Train what is missing, a wave of each swarm in turn."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="where packages, text and shards are kept")
    parser.add_argument("--out", type=Path, required=True, help="where the tables go")
    parser.add_argument("--swarm", nargs="+", choices=list(SWARMS), default=list(SWARMS), dest="swarms")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    going = list(prepare(arguments.swarms, arguments.data.resolve(), arguments.out))
    for prepared in going:
        prepared.write_description()
    while going:
        for prepared in list(going):
            done = prepared.done()
            prepared.train(range(done, min(done + WAVE, prepared.swarm.runs)))
            print(f"{prepared.name}: {prepared.done()} of {prepared.swarm.runs}", flush=True)
            if prepared.done() >= prepared.swarm.runs:
                going.remove(prepared)


if __name__ == "__main__":
    main()
