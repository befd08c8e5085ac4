"""The planned training run of a request: counted, held to its proxies, and what knowing the transfer to it costs."""

from collections.abc import Mapping
from dataclasses import replace
from math import log
from typing import Any

from mixing.document import from_document
from mixing.runs.sound import alike
from mixing.terms import Target
from proxy_models.config import SIZES, size_named
from proxy_models.errors import ProxyError
from proxy_models.families.architecture import checked_architecture
from service.optimizations.cost import AskedSwarm, cost_view
from service.optimizations.schemas import OptimizationRequest
from service.optimizations.views import CostView, ToKnowView
from service.training.device import WorkerDevice, known_counts
from store.documents import (
    AnchorsDocument,
    ModelDocument,
    OptimizationDocument,
    SwarmDocument,
    TrainingDocument,
)
from store.problems import Invalid
from store.settings import Settings


def target_model(request: OptimizationRequest) -> TrainingDocument | None:
    """The target's architecture, to be counted; None where its parameters follow from what was said.

    Raises Invalid naming the field.
    """
    target = request.target
    if target is None or target.architecture is None:
        return None
    try:
        architecture = checked_architecture(target.architecture)
    except ProxyError as error:
        raise Invalid(error.code, str(error), "target.architecture") from error
    rows = 16 if request.proxy is None else request.proxy.sequence_length
    told: dict[str, Any] = {
        "architecture": architecture,
        "tokens": request.target_tokens,
        "sequence_length": rows,
    }
    return from_document(TrainingDocument, told)


def parameters_of(model: ModelDocument, settings: Settings, field: str) -> int:
    """Parameters outside the embeddings and the head. Raises Invalid where nobody could count them."""
    if model.size is not None:
        try:
            return size_named(model.size, 1).non_embedding_parameters
        except ProxyError as error:
            raise Invalid(error.code, str(error), f"{field}.size") from error
    counts = known_counts(settings.model_counts, model.architecture or {})
    if counts is None:
        raise Invalid(
            "not_counted",
            "The parameters of this architecture could not be counted; say for the target how many there are, or"
            " leave it out.",
            field,
        )
    return counts.without.non_embedding_parameters


def with_target(
    document: OptimizationDocument, request: OptimizationRequest, settings: Settings
) -> OptimizationDocument:
    """The document with the target of the request, if it has one, and with the parameters of its proxies.

    Raises Invalid for a target smaller than its proxies, of other tokens than the caps are for, or of proxies of
    which nobody said how large they are.
    """
    asked = request.target
    if asked is None:
        if request.anchors:
            raise Invalid(
                "no_target", "Anchors tell what gains are worth at a target; say which it is.", "target"
            )
        return document
    if asked.tokens not in (None, request.target_tokens):
        raise Invalid(
            "other_tokens",
            f"The target trains {asked.tokens:,} tokens and target_tokens, which the caps are for, are"
            f" {request.target_tokens:,}; leave one of them out.",
            "target.tokens",
        )
    model = ModelDocument(size=asked.size, architecture=asked.architecture)
    parameters = asked.parameters or parameters_of(model, settings, "target")
    own = document.run_parameters
    if document.proxy is not None:
        own = parameters_of(document.proxy, settings, "proxy")
    for name, value, said in (
        ("parameters", own, parameters),
        ("tokens", document.whole_run, request.target_tokens),
    ):
        if value is None:
            raise Invalid(
                f"missing_run_{name}",
                f"A target is held to its proxies; say how many {name} a run trained elsewhere has, as run_{name} or"
                " with each run.",
                f"run_{name}",
            )
        if said < value:
            raise Invalid(
                "target_below_proxies",
                f"The target has {said:,} {name} and its proxies {value:,}; a target is larger than what is trained"
                " for it: make the proxies smaller, or leave the target out.",
                "target",
            )
    target = Target(parameters=float(parameters), tokens=float(request.target_tokens))
    return replace(document, target=target, run_parameters=own, anchors=_anchors(document, request, settings))


def _anchors(
    document: OptimizationDocument, request: OptimizationRequest, settings: Settings
) -> tuple[AnchorsDocument, ...]:
    """The anchors' runs as stored, trained as the proxies but for size, tokens and the size's own learning rate."""
    proxy, anchors = document.proxy, []
    for number, asked in enumerate(request.anchors):
        field = f"anchors[{number}]"
        if proxy is None:
            raise Invalid("nothing_trained_here", "Anchors are trained here, and the proxies are not.", field)
        if proxy.start is not None and asked.size is not None:
            raise Invalid(
                "unfit_start", "Anchors of another size cannot start from the proxies' model.", field
            )
        other = (
            {} if asked.size is None else {"size": asked.size, "architecture": None, "learning_rate": None}
        )
        own = replace(proxy, tokens=asked.tokens or proxy.tokens, **other)
        parameters = parameters_of(own, settings, field)
        taken = [(parameters_of(proxy, settings, "proxy"), proxy.tokens)]
        taken += [(one.parameters, one.proxy.tokens) for one in anchors]
        if any(alike(parameters / size) and alike(own.tokens / tokens) for size, tokens in taken):
            raise Invalid(
                "sizes_not_apart",
                "These anchors have the size and the tokens of the proxies or of other anchors, so they tell nothing"
                " of another; give another size or other tokens.",
                field,
            )
        anchors.append(AnchorsDocument(runs=asked.runs, proxy=own, parameters=parameters))
    return tuple(anchors)


def nearest_size(parameters: float) -> str:
    """The named size of nearly so many parameters."""
    return min(SIZES, key=lambda name: abs(log(SIZES[name].non_embedding_parameters / parameters)))


def to_know_view(
    settings: Mapping[str, Any], swarm: AskedSwarm | None, device: WorkerDevice, own: CostView | None
) -> ToKnowView | None:
    """What it would cost to know the transfer that is unknown; None without a target, or where anchors tell it.

    Args:
        settings: of the optimization, as stored.
        swarm: that it trains; None where it trains none here.
        device: of the workers.
        own: cost of the swarm, whose time an operation the anchors' follows where their size was not calibrated.
    """
    if not settings.get("target"):
        return None
    from mixing.laws.transfer import halfway  # scipy, which who asks for no target need not load

    target = from_document(Target, settings["target"])
    document = from_document(SwarmDocument, settings)
    if document.run_parameters is None or document.whole_run is None or document.anchors:
        return None
    proxy = float(document.run_parameters), float(document.whole_run)
    known = halfway((target.parameters, target.tokens), proxy)
    said = {
        "runs": known.runs,
        "parameters": round(known.parameters),
        "tokens": round(known.tokens),
        "unknown": known.unknown,
        "known": known.known,
    }
    if swarm is None:
        return ToKnowView(**said, size=None, device_hours=None)
    size = nearest_size(known.parameters)
    model = replace(
        swarm.proxy,
        size=size,
        architecture=None,
        start=None,
        start_content=None,
        learning_rate=None,
        tokens=round(known.tokens),
    )
    anchors = replace(
        swarm, proxy=model, runs=known.runs, tokens=known.runs * model.whole_steps(model.tokens)
    )
    cost = cost_view(anchors, device)
    hours = None if cost is None else cost.device_hours
    if hours is None and cost is not None and own is not None and own.device_hours is not None:
        hours = own.device_hours * cost.training_flops / max(own.training_flops, 1)
    return ToKnowView(**said, size=size, device_hours=hours)
