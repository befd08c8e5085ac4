"""A model of either kind from its shape."""

import torch

from proxy_models.config import ModelConfig, TrainingConfig
from proxy_models.families.architecture import Architecture
from proxy_models.model.model import Decoder, LanguageModel, lower_precision

Shape = ModelConfig | Architecture


def build_model(shape: Shape, training: TrainingConfig, device: str, dtype: torch.dtype) -> LanguageModel:
    """The model of the shape on the device, initialised from the training's seed and the shape alone.

    Raises `InvalidSpec`: an architecture ``transformers`` cannot build, or one too short for the training's rows.
    """
    if isinstance(shape, ModelConfig):
        decoder = Decoder(shape, training.seed).to(device, dtype)
        decoder.lower = lower_precision(training, dtype)
        return decoder
    # seconds to import, and needed for these only
    from proxy_models.families.transformers_model import TransformersModel, build, check_length

    check_length(shape, training.sequence_length)
    inner = build(shape, training.seed).to(device, dtype)
    return TransformersModel(shape, inner, lower_precision(training, dtype))
