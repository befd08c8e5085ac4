"""The learning rate a run's schedule comes down from."""

from proxy_models.config import ModelConfig, ladder_learning_rate
from proxy_models.errors import InvalidSpec
from proxy_models.families.counting import counted
from proxy_models.training.run_spec import RunSpec


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
