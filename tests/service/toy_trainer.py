"""A trainer and evaluator that know nothing of Mixwright: they read RegMix's configurations and write lm-eval files.

Run as ``python toy_trainer.py FOLDER``: for every ``FOLDER/<run>/mixture.yaml`` it "trains", and writes
``FOLDER/<run>/eval/results_2026.json``. What it reaches is a law of the mixture, as in Data Mixing Laws.
"""

import json
import math
import sys
from pathlib import Path


def read(path: Path) -> dict[str, float]:
    """The weights below ``train:`` of the YAML that RegMix's trainer reads."""
    weights, is_inside = {}, False
    for line in path.read_text().splitlines():
        if not line.startswith(" "):
            is_inside = line.startswith("train:")
        elif is_inside:
            name, _, value = line.strip().rpartition(": ")
            weights[name.strip('"').removeprefix("train_")] = float(value)
    return weights


def evaluate(weights: dict[str, float]) -> dict[str, float]:
    """A loss of code, and the accuracy of a test of general knowledge."""
    loss = 1.2 + 1.7 * math.exp(-4.0 * weights.get("code", 0.0))
    error = 0.3 + 0.5 * math.exp(-2.0 * weights.get("web", 0.0) - 1.0 * weights.get("books", 0.0))
    return {"code": loss, "general": 1 - error}


for configuration in sorted(Path(sys.argv[1]).glob("*/mixture.yaml")):
    reached = evaluate(read(configuration))
    results = {
        "code": {"alias": "code", "bits_per_byte,none": reached["code"], "bits_per_byte_stderr,none": "N/A"},
        "general": {"alias": "general", "acc,none": reached["general"], "acc_stderr,none": 0.01},
    }
    written = configuration.parent / "eval" / "results_2026.json"
    written.parent.mkdir(exist_ok=True)
    written.write_text(json.dumps({"results": results, "higher_is_better": {"general": {"acc": True}}}))
