"""Hugging Face datasets, and LLaMA-Factory on top of it: probabilities of *documents*.

A domain of long documents needs a lower probability for the same tokens: p_i is proportional to w_i divided by the
mean tokens of a document of i. Draws are random.
"""

import json

from exchange.formats.base import Blend, Format
from exchange.formats.plain import decimal


class _Documents(Format):
    unit = "documents"
    exact = False


class Datasets(_Documents):
    """What `interleave_datasets` is called with, as JSON; needs the documents and tokens of every domain."""

    name = "datasets"
    title = "Hugging Face datasets 5.2 (interleave_datasets)"
    file = "interleave.json"
    checked = "drawn with datasets 5.2.0, within its chance"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        paths = blend.each("paths")
        told = {
            "datasets": [
                {"name": source.name, "data_files": list(files)}
                for source, files in zip(blend.sources, paths, strict=True)
            ],
            "probabilities": probabilities(blend),
            "seed": blend.seed,
            # Others drop text or ignore the weights once a domain is read to its end.
            "stopping_strategy": "all_exhausted",
            "take": documents(blend),
        }
        return {self.file: json.dumps(told, indent=2) + "\n"}


class LlamaFactory(_Documents):
    """`dataset_info.json`, and the lines of the training YAML; needs the documents and tokens of every domain."""

    name = "llama-factory"
    title = "LLaMA-Factory (interleave_over)"
    file = "dataset_info.json"
    checked = "against its documented schema; draws as datasets does"

    def files(self, blend: Blend) -> dict[str, str]:
        """See `Format`."""
        paths = blend.each("paths")
        info = {
            source.name: {"file_name": files[0], "columns": {"prompt": "text"}}
            for source, files in zip(blend.sources, paths, strict=True)
        }
        lines = [
            f"dataset: {','.join(source.name for source in blend.sources)}",
            "mix_strategy: interleave_over",
            f"interleave_probs: {','.join(map(decimal, probabilities(blend)))}",
        ]
        return {
            self.file: json.dumps(info, indent=2) + "\n",
            "mixture.yaml": "\n".join([*lines, ""]),
        }


def probabilities(blend: Blend) -> list[float]:
    """Of drawing a document of each domain, so that its share of the tokens is its weight; they sum to 1."""
    wanted = [source.weight / mean for source, mean in zip(blend.sources, _mean_tokens(blend), strict=True)]
    total = sum(wanted)
    shares = [weight / total for weight in wanted]
    shares[-1] = 1.0 - sum(shares[:-1])
    return shares


def documents(blend: Blend) -> int | None:
    """How many documents make the target; None where nobody said it."""
    if blend.target_tokens is None:
        return None
    mean = sum(p * tokens for p, tokens in zip(probabilities(blend), _mean_tokens(blend), strict=True))
    return round(blend.target_tokens / mean)


def _mean_tokens(blend: Blend) -> list[float]:
    pairs = zip(blend.each("tokens"), blend.each("documents"), strict=True)
    return [tokens / count for tokens, count in pairs]
