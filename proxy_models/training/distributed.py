"""One model trained by several processes: copies that average their gradients (DDP), or shards of it (FSDP2).

Whichever it is, and however many there are, a step is that of one process over the whole batch: each takes its share
of the rows, gradients and loss are means over all, and the norm that is clipped is the whole gradient's. Only the
order of additions differs. A mixture of experts balances its router over the rows of one process at a time.

Checkpoints are PyTorch's (``torch.distributed.checkpoint``), in safetensors: what so many processes have saved any
other number can go on from, this engine and the loop of a single process alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.parallel import DistributedDataParallel

from proxy_models.config import TrainingConfig
from proxy_models.errors import InvalidSpec
from proxy_models.evaluation import Scored, evaluate
from proxy_models.families.architecture import Architecture
from proxy_models.model.model import Decoder, LanguageModel
from proxy_models.training.processes import ALONE, Processes
from proxy_models.training.saved_shards import SavedShards
from proxy_models.training.stacked_optimizer import AdamW
from proxy_models.training.step import Backend, Learned, Shape, build_model

Sharding = Literal["ddp", "fsdp"]


@dataclass(frozen=True)
class Engine:
    """How one model is trained by ``processes``; but for rounding the numbers depend on none of it.

    Attributes:
        processes: that train it, each on its share of the rows.
        sharding: ``"ddp"``: each has the whole model; ``"fsdp"``: each has a part of every tensor and of its
            moments, and fetches a layer's others when it comes to the layer.
        micro_batch_rows: rows a process takes forward and back at once, adding up their gradients; None: all.
        recompute: keep only what enters a layer, and compute the layer again on the way back.
        compiled: each layer through ``torch.compile``.
    """

    processes: Processes = ALONE
    sharding: Sharding = "ddp"
    micro_batch_rows: int | None = None
    recompute: bool = False
    compiled: bool = False

    def micro_batches(self, rows: int) -> int:
        """In how many pieces a process takes its rows. Raises `InvalidSpec` where they do not divide."""
        size = self.micro_batch_rows or rows
        if rows % size:
            raise InvalidSpec(
                f"micro_batch_rows {size} does not divide the {rows} rows of each process", "micro_batch_rows"
            )
        return rows // size


class _Root(nn.Module):
    """The model as one module whose every use passes through `forward`, where its shards are fetched."""

    def __init__(self, model: LanguageModel) -> None:
        super().__init__()
        self.used = [model]  # in a list: one that is a module is registered once, below
        self.inner = _module(model)

    def forward(self, tokens: Tensor, targets: Tensor | None = None, mask: Tensor | None = None) -> Any:
        """The loss; without targets what `LanguageModel.logits` takes."""
        (model,) = self.used
        return model(tokens) if targets is None else model.loss(tokens, targets, mask)


def _module(model: LanguageModel) -> nn.Module:
    """Our decoder is one; a model of ``transformers`` has one."""
    if isinstance(model, Decoder):
        return model
    from proxy_models.families.transformers_model import TransformersModel

    assert isinstance(model, TransformersModel)
    return model.inner


class _Gathered:
    """The model for evaluation: the head's shards are fetched when logits are asked for."""

    def __init__(self, root: nn.Module, model: LanguageModel) -> None:
        self.root, self.model, self.config = root, model, model.config

    def __call__(self, tokens: Tensor) -> Any:
        return self.root(tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        if isinstance(self.root, FSDPModule):
            self.root.unshard()
        return self.model.logits(hidden)


class Distributed(Backend):
    """One model, trained by the processes of an `Engine`; it begins as `build_model` draws it.

    A sharded one of ours is never whole anywhere, one of the library's in the first process alone.
    """

    def __init__(
        self,
        model: Shape,
        training: TrainingConfig,
        engine: Engine,
        device: str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__(1, training)
        self.device, self.clip, self.engine = device, training.clip, engine
        rows = engine.processes.rows(training.batch_rows)
        self.pieces = engine.micro_batches(rows.stop - rows.start)
        is_sharded = engine.sharding == "fsdp"
        empty = is_sharded and engine.processes.count > 1 and _may_be_empty(model, engine.processes)
        self.model = build_model(model, training, "meta" if empty else "cpu", dtype)
        root = _Root(self.model)
        layers = _layers(root.inner)
        if engine.recompute:
            _recompute(self.model)
        if is_sharded:
            mesh = init_device_mesh(torch.device(device).type, (engine.processes.count,))
            whole = {} if empty else dict(root.inner.named_parameters())
            values = {name: parameter.detach() for name, parameter in whole.items()}
            for layer in layers:
                fully_shard(layer, mesh=mesh)
            fully_shard(root, mesh=mesh)
            if engine.processes.count > 1:
                self._fill(root, values, training.seed)
        root.to(device)
        if engine.compiled:
            for layer in layers:
                layer.compile()
        self.root: nn.Module = root
        if engine.sharding == "ddp" and engine.processes.count > 1:
            self.root = DistributedDataParallel(
                root,
                forward_sync_buffers=False,
                gradient_as_bucket_view=True,
                find_unused_parameters=isinstance(model, Architecture),  # an expert no token was sent to
            )
        self.whole = dict(self.model.named_parameters())
        self.own = {name: _local(parameter.detach()) for name, parameter in self.whole.items()}
        self.optimizer = AdamW(self.own.items(), training.weight_decay)

    @torch.no_grad()
    def _fill(self, root: nn.Module, values: Mapping[str, Tensor], seed: int) -> None:
        """Give each process its part of the initial model, one tensor after the other.

        Ours is drawn by name, so that every process draws the same; a model of the library's is the first process's,
        which has built it (``values``), and is sent to the others.
        """
        root.to(self.device) if values else root.to_empty(device=self.device)
        for name, parameter in _module(self.model).named_parameters():
            assert isinstance(parameter, DTensor)
            if isinstance(self.model, Decoder):
                full = torch.empty(parameter.shape)
                self.model.draw(name, full, seed)
                part = _part(full.to(self.device, parameter.dtype), parameter)
            else:
                full = values.get(name, torch.empty(parameter.shape, dtype=parameter.dtype)).to(self.device)
                part = distribute_tensor(full, parameter.device_mesh, parameter.placements).to_local()
            _local(parameter).copy_(part)
        if not isinstance(self.model, Decoder):
            for buffer in root.buffers():
                torch.distributed.broadcast(buffer, 0)

    def learn(self, batches: np.ndarray, rates: Sequence[float]) -> Learned:
        """See `Backend.learn`; ``batches`` are this process's rows."""
        loss = self._gradients(torch.from_numpy(batches[0]).to(self.device))
        square = self.optimizer.norm() ** 2
        if self.engine.sharding == "fsdp":
            square = self.engine.processes.total(square)
        norm = float(square.sqrt())
        self.optimizer.clip(self.clip, norm)
        learned = Learned((loss,), (norm,))
        if not learned.diverged(0):
            self.optimizer.step(rates[0])
        return learned

    def _gradients(self, batch: Tensor) -> float:
        """Leave each process the mean gradient of all rows, or its shard of it; answers their mean loss."""
        for parameter in self.whole.values():
            parameter.grad = None
        total = torch.zeros((), dtype=torch.float64)
        for number, piece in enumerate(batch.chunk(self.pieces)):
            with self._shared(last=number == self.pieces - 1):
                tokens = piece[:, :-1]
                loss = self.root(tokens, piece[:, 1:], self.mask(tokens)) / self.pieces
                loss.backward()
            total += loss.item()
        for name, parameter in self.whole.items():
            gradient = parameter.grad
            self.own[name].grad = torch.zeros_like(self.own[name]) if gradient is None else _local(gradient)
        processes = self.engine.processes
        return float(processes.total(total.to(self.device)) / processes.count)

    @contextmanager
    def _shared(self, last: bool) -> Iterator[None]:
        """Gradients go to the other processes with the last piece of a batch only."""
        if isinstance(self.root, FSDPModule):
            self.root.set_requires_gradient_sync(last)
        copies = self.root if isinstance(self.root, DistributedDataParallel) and not last else None
        with nullcontext() if copies is None else copies.no_sync():
            yield

    def state(self, member: int = 0) -> dict[str, Tensor]:
        """See `Backend.state`; of a sharded model `DTensor`s, of which each process has its part."""
        moments = {"average": self.optimizer.averages, "square": self.optimizer.squares}
        return {
            **{f"model.{name}": parameter.detach() for name, parameter in self.whole.items()},
            **{
                f"{kind}.{name}": _like(self.whole[name], moment)
                for kind, own in moments.items()
                for name, moment in own.items()
            },
        }

    @torch.no_grad()
    def load(self, member: int, state: Mapping[str, Tensor], steps_done: int) -> None:
        """See `Backend.load`; a `SavedShards` is read into the shards without ever being whole."""
        own = self.state()
        if isinstance(state, SavedShards):
            state.read_into(own)
        else:
            for name, tensor in own.items():
                _local(tensor).copy_(_part(state[name].to(tensor.device, tensor.dtype), tensor))
        self.optimizer.steps = steps_done

    def parameters(self, member: int = 0) -> dict[str, Tensor]:
        """See `Backend.parameters`; in the memory of the first process, one tensor after the other."""
        whole = {}
        for name, parameter in self.whole.items():
            full = parameter.full_tensor() if isinstance(parameter, DTensor) else parameter
            if self.engine.processes.is_first:
                whole[name] = full.detach().cpu()
        return whole

    def evaluate(self, tasks: Mapping[str, Scored]) -> list[dict[str, float]]:
        """See `Backend.evaluate`; the processes share the windows."""
        root = self.root.module if isinstance(self.root, DistributedDataParallel) else self.root
        measured = evaluate(_Gathered(root, self.model), tasks, self.device, self.engine.processes)
        if isinstance(root, FSDPModule):
            root.reshard()
        return [measured]


def _layers(model: nn.Module) -> list[nn.Module]:
    """The layers that are sharded one by one: the largest list of modules."""
    lists = [module for module in model.modules() if isinstance(module, nn.ModuleList)]
    return list(max(lists, key=lambda found: sum(p.numel() for p in found.parameters()), default=()))


def _recompute(model: LanguageModel) -> None:
    inner: Any = _module(model)
    if isinstance(inner, Decoder):
        inner.recompute = True
    else:
        inner.gradient_checkpointing_enable({"use_reentrant": False})
        inner.train()  # it is asked for before anything is computed again


def _local(tensor: Tensor) -> Tensor:
    """The part of a sharded tensor that is here, in the same memory; another tensor itself."""
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor


def _part(full: Tensor, like: Tensor) -> Tensor:
    """Of a tensor that each process has whole the part that it has of another."""
    if not isinstance(like, DTensor):
        return full
    return distribute_tensor(full, like.device_mesh, like.placements, src_data_rank=None).to_local()


def _may_be_empty(model: Shape, processes: Processes) -> bool:
    """Whether this process need not build the model: ours nobody has to, the library's the first does.

    One that uses a tensor in two places is built everywhere: filled anew it would have two.
    """
    if not isinstance(model, Architecture):
        return True
    from proxy_models.families.transformers_model import empty_model

    named = empty_model(model).named_parameters
    is_tied = len(list(named(remove_duplicate=False))) > len(list(named()))
    return not (processes.is_first or is_tied)


def _like(parameter: Tensor, own: Tensor) -> Tensor:
    """A moment's part as a tensor sharded as its parameter is."""
    if not isinstance(parameter, DTensor):
        return own
    return DTensor.from_local(
        own,
        parameter.device_mesh,
        parameter.placements,
        run_check=False,
        shape=parameter.shape,
        stride=parameter.stride(),
    )
