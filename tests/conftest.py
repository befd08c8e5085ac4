"""What holds for every test: one thread a process, no settings from outside, examples that do not hurry."""

import os
import signal

# Set before anything imports torch or numpy. Two OpenMP threads on two contended cores are slower than one,
# and a thread that spins while it waits takes the core from the child process it waits for.
SINGLE_THREADED = {
    "OMP_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}
os.environ.update(SINGLE_THREADED)

# What the developer has set for a service of their own must not decide how a test ends.
for name in [name for name in os.environ if name.startswith("MIXWRIGHT_")]:
    if not name.startswith(("MIXWRIGHT_TEST_", "MIXWRIGHT_OLMIX_DATA")):
        del os.environ[name]

# Asked to stop, tests end as on Ctrl-C: what they started is stopped, what they made is dropped.
signal.signal(signal.SIGTERM, signal.default_int_handler)

from hypothesis import settings  # noqa: E402 - after the environment is settled

pytest_plugins = ["tests.servers"]


def pytest_make_parametrize_id(config: object, val: object, argname: str) -> str | None:
    """Name a case that is bytes by its argument: compressed bytes hold the time they were made at.

    Processes that share the tests between them must give every test the same name.
    """
    return argname if isinstance(val, bytes) else None


settings.register_profile("mixwright", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("mixwright")
