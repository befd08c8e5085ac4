"""Known truths over the contents of `benchmarks.reuse_updates`, drawn from laws fitted to the RegMix runs.

- `blends`: every content is a blend of the 17 domains of the published swarm, and its losses are those of a Gaussian
  process fitted to that swarm's runs. Contents that share a domain stand in for each other, so what one is worth
  depends on how much of the others there is: ratios that are kept cost something, and no law has this shape.
- `blends, mixed`: the same with blends less pure, which are more like each other.
- `effective power`: the family fitted by default, the columns of the contents drawn from those of the 17 domains.
- `log-linear`: Olmix's family, likewise.

The last two need no data: the laws' parameters are in `benchmarks/results/regmix_laws.json`.

A part of the split source has its parent's column with a spread; the revised source has a column between that of its
older text and another.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.regmix import RegMix
from benchmarks.reuse_updates import SPLIT, Updates
from mixing.laws.exponential.log_linear import FittedLogLinear, LogLinearLaw
from mixing.laws.powers.effective_power import EffectivePowerLaw, FittedEffectivePower
from mixing.laws.processes.fitted_process import FittedProcess
from mixing.laws.processes.gaussian_process import GaussianProcess

FLOOR = 5e-5
KEPT = 0.7
"""Share of the revised text's column in that of its older text; the rest is another domain's."""
PURITY, MIXED, CONCENTRATION = 0.75, 0.4, 6.0
"""Of a blend: its main domain's share in the mean of the Dirichlet it is drawn from, high or low; and the strength of
that Dirichlet."""
PART_CONCENTRATION = 8.0
JITTER = 0.5
"""Standard deviation of the logarithm of a drawn usefulness around the one it was drawn from."""
PART_SPREAD = 1.0
"""The same of a part's around its parent's."""
STEEPEST = 6.0
"""Largest size of a log-linear coefficient; RegMix's fits go to 70, where a few runs hold nothing of a domain."""


LAWS = Path(__file__).parent / "results" / "regmix_laws.json"
_POWER = ("usefulness", "exponents", "rest", "decay", "scales", "constants")
_LOG_LINEAR = ("coefficients", "constants")


@dataclass(frozen=True)
class PowerColumns:
    """The effective power law's parameters, as `FittedEffectivePower` names them."""

    usefulness: np.ndarray
    exponents: np.ndarray
    rest: np.ndarray
    decay: np.ndarray
    scales: np.ndarray
    constants: np.ndarray


@dataclass(frozen=True)
class LogLinearColumns:
    """The log-linear law's parameters, as `FittedLogLinear` names them."""

    coefficients: np.ndarray
    constants: np.ndarray


@dataclass(frozen=True)
class Fits:
    """What was fitted to the real runs.

    Attributes:
        process: of shape of no law; None where the runs themselves are not there.
        power: the effective power law.
        log_linear: Olmix's law.
        mean_weights: (17,) of the real swarm.
        noise: (T,) scale of the Student-t noise of one run: 1.48 times the median size of the process's residuals on
            the 256 test runs, which holds what the process itself is off by.
    """

    process: FittedProcess | None
    power: PowerColumns
    log_linear: LogLinearColumns
    mean_weights: np.ndarray
    noise: np.ndarray

    @classmethod
    def of(
        cls,
        process: FittedProcess,
        power: FittedEffectivePower,
        log_linear: FittedLogLinear,
        mean_weights: np.ndarray,
        noise: np.ndarray,
    ) -> "Fits":
        """Of laws as they were fitted."""
        return cls(
            process,
            PowerColumns(**{name: getattr(power, name) for name in _POWER}),
            LogLinearColumns(**{name: getattr(log_linear, name) for name in _LOG_LINEAR}),
            mean_weights,
            noise,
        )

    @classmethod
    def stored(cls, path: Path = LAWS) -> "Fits":
        """The laws `store` wrote."""
        content = json.loads(path.read_text())
        power, log_linear = (
            {name: np.array(values) for name, values in content[law].items()}
            for law in ("power", "log_linear")
        )
        return cls(
            None,
            PowerColumns(**power),
            LogLinearColumns(**log_linear),
            np.array(content["mean_weights"]),
            np.array(content["noise"]),
        )

    def store(self, path: Path) -> None:
        """Write the laws' parameters to seven digits; the process is made of the runs and stays out."""
        content = {
            "source": "fitted to the published RegMix runs (arXiv 2407.01492) by benchmarks.reuse --laws",
            "power": {name: _rounded(getattr(self.power, name)) for name in _POWER},
            "log_linear": {name: _rounded(getattr(self.log_linear, name)) for name in _LOG_LINEAR},
            "mean_weights": _rounded(self.mean_weights),
            "noise": _rounded(self.noise),
        }
        path.write_text(json.dumps(content) + "\n")

    @property
    def worlds(self) -> tuple[str, ...]:
        """Names of the truths that can be drawn."""
        return tuple(name for name in WORLDS if self.process is not None or not name.startswith("blends"))


def _rounded(values: np.ndarray) -> Any:
    return np.vectorize(lambda value: float(f"{value:.7g}"))(values).tolist()


def fits(swarm: RegMix) -> Fits:
    """The three laws, each fitted to the 512 training runs."""
    runs = swarm.train_weights, swarm.train_metrics
    process = GaussianProcess().fit(*runs)
    residuals = process.mean(swarm.test_weights) - swarm.test_metrics
    noise = 1.4826 * np.median(np.abs(residuals), axis=0)
    return Fits.of(
        process,
        EffectivePowerLaw().fit(*runs),
        LogLinearLaw().fit(*runs),
        swarm.train_weights.mean(0),
        noise,
    )


@dataclass(frozen=True)
class Truth:
    """What every mixture of the contents is worth.

    Attributes:
        losses: (n, C) mixtures to (n, T) losses, without noise.
        noise: (T,) scale of a measurement's Student-t noise of 4 degrees of freedom.
    """

    losses: Callable[[np.ndarray], np.ndarray]
    noise: np.ndarray

    @property
    def tasks(self) -> tuple[str, ...]:
        """Names of the T losses."""
        return tuple(f"task{at:02}" for at in range(len(self.noise)))

    def measure(self, weights: np.ndarray, generator: np.random.Generator) -> dict[str, float]:
        """One run at a (C,) mixture, by task."""
        losses = self.losses(weights[None])[0]
        noisy = losses + self.noise * generator.standard_t(4, len(losses))
        return dict(zip(self.tasks, noisy.tolist(), strict=True))

    def of(self, tasks: np.ndarray) -> "Truth":
        """The same, of some of the tasks only."""
        losses = self.losses
        return Truth(lambda weights: losses(weights)[:, tasks], self.noise[tasks])

    def objective(self, weights: np.ndarray) -> float:
        """The mean over the tasks at one (C,) mixture, without noise."""
        return float(self.losses(weights[None])[0].mean())


@dataclass(frozen=True)
class _Pool:
    """Rows of the contents by the part they play, and the natural ratios of the parts."""

    count: int
    parts: np.ndarray
    ratios: np.ndarray
    old: int

    @classmethod
    def of(cls, pool: Updates) -> "_Pool":
        contents = pool.whole.contents
        parts = np.array([at for at, name in enumerate(contents.names) if name.startswith(f"{SPLIT}:")])
        (old,) = (at for at, name in enumerate(contents.names) if name.startswith(f"{SPLIT}@"))
        tokens = contents.tokens[parts]
        return cls(len(contents), parts, tokens / tokens.sum(), old)


def blends(fitted: Fits, pool: Updates, generator: np.random.Generator, purity: float = PURITY) -> Truth:
    """Losses of the process at what the contents are blends of."""
    process = fitted.process
    assert process is not None, "not among the worlds without it"
    rows, width = _Pool.of(pool), len(fitted.mean_weights)

    def blend() -> np.ndarray:
        mean = (1 - purity) * fitted.mean_weights
        mean[generator.integers(width)] += purity
        return generator.dirichlet(CONCENTRATION * mean)

    made = np.stack([blend() for _ in range(rows.count)])
    parent = made[rows.parts[0]].copy()
    made[rows.parts] = generator.dirichlet(PART_CONCENTRATION * (parent + 1e-3), len(rows.parts))
    made[rows.old] = KEPT * rows.ratios @ made[rows.parts] + (1 - KEPT) * blend()
    return Truth(lambda weights: process.mean(weights @ made), fitted.noise)


def effective_power(fitted: Fits, pool: Updates, generator: np.random.Generator) -> Truth:
    """The default's own family."""
    law, rows = fitted.power, _Pool.of(pool)
    drawn = generator.integers(law.usefulness.shape[1], size=rows.count)
    drawn[rows.parts] = drawn[rows.parts[0]]
    tasks = len(law.usefulness)
    log_useful = np.log(law.usefulness[:, drawn]) + JITTER * generator.standard_normal((tasks, rows.count))
    exponents = law.exponents[:, drawn]
    parent = log_useful[:, rows.parts[0]]
    parts = parent[:, None] + PART_SPREAD * generator.standard_normal((tasks, len(rows.parts)))
    shares = (rows.ratios ** exponents[:, rows.parts] * np.exp(parts)).sum(1)
    log_useful[:, rows.parts] = parts + (parent - np.log(shares))[:, None]
    log_useful[:, rows.old] = KEPT * parent + (1 - KEPT) * log_useful[:, rows.old]
    useful = np.exp(log_useful)

    def losses(weights: np.ndarray) -> np.ndarray:
        terms = useful * np.exp(exponents * np.log(weights + FLOOR)[:, None, :])
        return law.constants + law.scales * (terms.sum(2) + law.rest) ** -law.decay

    return Truth(losses, fitted.noise)


def log_linear(fitted: Fits, pool: Updates, generator: np.random.Generator) -> Truth:
    """Olmix's family."""
    law, rows = fitted.log_linear, _Pool.of(pool)
    columns = np.clip(law.coefficients, -STEEPEST, STEEPEST)
    tasks, width = columns.shape
    size = columns.std(axis=1, keepdims=True)
    made = columns[:, generator.integers(width, size=rows.count)]
    made = made + 0.3 * JITTER * size * generator.standard_normal(made.shape)
    parent = made[:, rows.parts[0]].copy()
    spread = PART_SPREAD * 0.5 * size * generator.standard_normal((tasks, len(rows.parts)))
    made[:, rows.parts] = parent[:, None] + spread - (spread @ rows.ratios)[:, None]
    made[:, rows.old] = KEPT * parent + (1 - KEPT) * made[:, rows.old]
    return Truth(lambda weights: law.constants + np.exp(weights @ made.T), fitted.noise)


WORLDS: dict[str, Callable[[Fits, Updates, np.random.Generator], Truth]] = {
    "blends": blends,
    "blends, mixed": partial(blends, purity=MIXED),
    "effective power": effective_power,
    "log-linear": log_linear,
}
