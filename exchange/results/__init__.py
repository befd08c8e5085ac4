"""What runs measured, in the files that evaluators and trainers write: a reader each, in one catalogue.

catalogue    every reader, and files read by those that know them
json_files   lm-eval, OLMES, Hugging Face's trainer, and plain objects of metrics
tensorboard  event files, without TensorBoard
mlflow       its folders and its database, without MLflow
tables       exports of experiment trackers
"""

from exchange.results.base import InvalidResults, Measurement
from exchange.results.catalogue import (
    RATIOS,
    READERS,
    REALISED,
    Results,
    may_be_results,
    of_a_kind,
    read_results,
)

__all__ = [
    "RATIOS",
    "READERS",
    "REALISED",
    "InvalidResults",
    "Measurement",
    "Results",
    "may_be_results",
    "of_a_kind",
    "read_results",
]
