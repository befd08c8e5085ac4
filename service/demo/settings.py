"""What the demo asks for: chosen so that two CPU cores answer in minutes, and measured in docs/tutorial.md."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class DemoSettings:
    """One size of the demo. Tokens are tokens of the demo's own tokenizer."""

    strengths: tuple[float, float]
    """Closer to the natural distribution than Olmix's 0.1 to 5. With those, proxies this small learn mostly that a
    model trained on one domain is bad at everything else, and the law is flat where the answer lies."""
    proxy_size: str
    proxy_tokens: int
    launch_size: str
    """At least 8 times the proxy's non-embedding parameters."""
    target_tokens: int
    """What the launch trains on, and the R of the repetition caps."""
    batch_rows: int
    launch_batch_rows: int
    sequence_length: int
    repetition_cap: float
    seed: int


FULL = DemoSettings(
    strengths=(3.0, 30.0),
    proxy_size="nano-0.1M",
    proxy_tokens=128_000,
    launch_size="nano-1M",
    target_tokens=1_600_000,
    batch_rows=8,
    launch_batch_rows=16,
    sequence_length=64,
    repetition_cap=4.0,
    seed=0,
)
