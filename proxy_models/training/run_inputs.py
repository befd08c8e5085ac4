"""From the order for a run to the things it trains on and is measured by."""

from proxy_models.batches.mixture_sampler import MixtureSampler, SamplerSpec
from proxy_models.errors import InvalidSpec, MissingDomain, UnknownDomain
from proxy_models.evaluation.scores import Scored, continuation_task, held_out_task
from proxy_models.text.task_file import read_task
from proxy_models.text.token_shard import TokenShard
from proxy_models.text.tokenizer import load_tokenizer
from proxy_models.training.run_spec import HELD_OUT_PREFIX, RunSpec


def open_shards(spec: RunSpec) -> dict[str, TokenShard]:
    """The shard of every domain; raises where mixture, shards, tokenizer and vocabulary do not fit together."""
    for name in spec.mixture:
        if name not in spec.shards:
            raise UnknownDomain(name)
    for name in spec.shards:
        if name not in spec.mixture:
            raise MissingDomain(name)
    shards = {name: TokenShard.open(directory) for name, directory in sorted(spec.shards.items())}
    if len({shard.meta.tokenizer for shard in shards.values()}) > 1:
        raise InvalidSpec("the shards were made with different tokenizers", "shards")
    for name, shard in shards.items():
        if shard.meta.vocabulary_size > spec.vocabulary_size:
            raise InvalidSpec(
                f"vocabulary_size {spec.vocabulary_size} is smaller than the {shard.meta.vocabulary_size} ids of "
                f"domain {name!r}",
                "vocabulary_size",
            )
    return shards


def end_of_text(shards: dict[str, TokenShard]) -> int:
    """The token before each document; one tokenizer has one."""
    return next(iter(shards.values())).meta.end_of_text


def check_start(spec: RunSpec, shards: dict[str, TokenShard]) -> str:
    """The fingerprint of the shards' tokenizer; raises `UnfitStart` where what the run starts from learned others."""
    fingerprint = next(iter(shards.values())).meta.tokenizer
    if spec.starting is not None:
        spec.starting.check_tokenizer(fingerprint)
    return fingerprint


def mixture_sampler(spec: RunSpec, shards: dict[str, TokenShard]) -> MixtureSampler:
    """The batches of the run; raises what `MixtureSampler` raises."""
    training = spec.training
    return MixtureSampler(
        SamplerSpec(
            tokens={name: shard.tokens for name, shard in shards.items()},
            mixture=spec.mixture,
            steps=training.steps,
            batch_rows=training.batch_rows,
            sequence_length=training.sequence_length,
            seed=training.seed,
            max_epochs=spec.max_epochs,
        )
    )


def scored_tasks(spec: RunSpec) -> dict[str, Scored]:
    """The tasks by name, tokenized. Raises `CorpusError`, `TokenizerError`, `InvalidSpec`."""
    if not spec.tasks or spec.tokenizer is None:
        return {}
    tokenizer = load_tokenizer(spec.tokenizer)
    if tokenizer.vocabulary_size > spec.vocabulary_size:
        raise InvalidSpec(
            f"vocabulary_size {spec.vocabulary_size} is smaller than the tokenizer's", "vocabulary_size"
        )
    length = spec.training.sequence_length
    return {
        task.name: continuation_task(
            read_task(task.path, task.measure.metric), tokenizer, length, task.measure
        )
        for task in spec.tasks
    }


def scored_slices(spec: RunSpec, shards: dict[str, TokenShard]) -> dict[str, Scored]:
    """Each domain's held-out slice, under ``held-out/<domain>``."""
    return {
        HELD_OUT_PREFIX + name: held_out_task(
            shard.held_out(), shard.meta.end_of_text, spec.training.sequence_length
        )
        for name, shard in shards.items()
    }
