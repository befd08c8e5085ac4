"""From the order for a run to the things it starts from, trains on and is measured by."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from proxy_models.config import ModelConfig, ladder_learning_rate
from proxy_models.errors import CorpusError, InvalidSpec, UnfitStart
from proxy_models.evaluation import Scored, continuation_task, held_out_task
from proxy_models.families.architecture import Architecture
from proxy_models.families.counting import counted
from proxy_models.families.start import INDEX, StartFolder, check_names
from proxy_models.text.data_roots import held_folder, name_of, open_data
from proxy_models.text.task_file import read_task
from proxy_models.text.token_shard import TokenShard
from proxy_models.text.tokenizer import load_tokenizer
from proxy_models.training.mixture_sampler import MixtureSampler, SamplerSpec
from proxy_models.training.run_spec import HELD_OUT_PREFIX, RunSpec


def open_shards(spec: RunSpec) -> dict[str, TokenShard]:
    """The shard of every domain; raises where shards, tokenizer and vocabulary do not fit together."""
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
            read_task(task.path, task.measure.metric, task.fields), tokenizer, length, task.measure
        )
        for task in spec.tasks
    }


def scored_slices(spec: RunSpec, shards: dict[str, TokenShard]) -> dict[str, Scored]:
    """Each domain's held-out slice, under ``held-out/<domain>``; of a domain too small to have one there is none."""
    return {
        HELD_OUT_PREFIX + name: held_out_task(
            shard.held_out(), shard.meta.end_of_text, spec.training.sequence_length
        )
        for name, shard in shards.items()
        if shard.meta.evaluation_documents
    }


def starting_state(start: StartFolder, shape: ModelConfig | Architecture) -> Mapping[str, Tensor]:
    """The model of the folder with moments of zero, named as by `step.Learner.state`; read tensor by tensor.

    Raises `UnfitStart` for tensors that are missing, too many or of another shape than ``shape`` has, and when one
    that is asked for cannot be read.
    """
    # Names and shapes of ours were checked with the header.
    if isinstance(shape, ModelConfig) or start.tensors == _shapes_of(shape):
        return _Started(start)
    parameters = _library(start, shape)  # of a folder with older names, or without the head that is tied
    zeros = {name: torch.zeros_like(parameter) for name, parameter in parameters.items()}
    return {
        f"{kind}.{name}": tensor
        for kind, tensors in (("model", parameters), ("average", zeros), ("square", zeros))
        for name, tensor in tensors.items()
    }


def _shapes_of(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    from proxy_models.families.transformers_model import empty_model

    named = empty_model(architecture).named_parameters()
    return {name: tuple(parameter.shape) for name, parameter in named}


class _Started(Mapping[str, Tensor]):
    """A start's tensors in float32, none of which is read before it is asked for."""

    def __init__(self, start: StartFolder) -> None:
        self.start = start
        self.names = [f"{kind}.{name}" for kind in ("model", "average", "square") for name in start.tensors]
        self.files = {name: path for path in start.files for name in _names_in(start.folder, path)}

    def __getitem__(self, key: str) -> Tensor:
        kind, _, name = key.partition(".")
        if kind != "model":
            return torch.zeros(self.start.tensors[name])
        with _opened(self.start.folder, self.files[name]) as file:
            return file.get_tensor(name).float()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)


def _names_in(folder: Path, path: Path) -> list[str]:
    if path.suffix != ".safetensors":
        return []
    with _opened(folder, path) as file:
        return list(file.keys())


@contextmanager
def _opened(folder: Path, path: Path) -> Iterator[Any]:
    try:
        with open_data(path) as stream, safe_open(name_of(stream), framework="pt") as file:
            yield file
    except (OSError, CorpusError, SafetensorError) as error:
        raise UnfitStart(folder, f"{path.name} cannot be read: {error}") from error


def _library(start: StartFolder, architecture: Architecture) -> dict[str, Tensor]:
    """Through ``from_pretrained``, which knows what older folders called their tensors."""
    from transformers import AutoModelForCausalLM

    from proxy_models.families.transformers_model import configuration, drawn_from

    with drawn_from(0):  # what is missing is drawn before it is reported
        try:
            with held_folder(start.folder, [*{path.name for path in start.files}, INDEX]) as held:
                model, report = _from_pretrained(AutoModelForCausalLM, held, configuration(architecture))
        except (OSError, CorpusError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
            raise UnfitStart(start.folder, " ".join(str(error).split())[:500]) from error
    if report["mismatched_keys"]:
        name, there, here = sorted(report["mismatched_keys"])[0]
        raise UnfitStart(start.folder, f"its tensor {name} is {tuple(there)}, the model's is {tuple(here)}")
    check_names(start.folder, set(report["missing_keys"]), set(report["unexpected_keys"]))
    return {name: parameter.detach() for name, parameter in model.named_parameters()}


def _from_pretrained(auto: Any, folder: Path, config: Any) -> tuple[Any, dict[str, Any]]:
    return auto.from_pretrained(
        folder,
        config=config,
        dtype=torch.float32,
        local_files_only=True,
        use_safetensors=True,
        trust_remote_code=False,
        ignore_mismatched_sizes=True,
        output_loading_info=True,
    )


def peak_rate(spec: RunSpec) -> float:
    """``training.learning_rate``; else what the checkpoint ended with; else the default of the size.

    An architecture's default is `ladder_learning_rate` of the parameters a token passes. Raises `InvalidSpec` for a
    checkpoint that says nothing of its rate.
    """
    if spec.training.learning_rate is not None:
        return spec.training.learning_rate
    if (start := spec.starting) is not None:
        if start.saved is None:
            raise InvalidSpec(
                f"{start.folder} does not say at which learning rate it ended; give learning_rate",
                "learning_rate",
            )
        return start.saved.learning_rate
    shape = spec.model
    if isinstance(shape, ModelConfig):
        return shape.default_learning_rate
    return ladder_learning_rate(counted(shape).active_parameters)
