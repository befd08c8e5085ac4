"""Keep freed memory in the process instead of giving it back to the kernel after every tensor.

Each training step allocates and frees the same few megabytes. glibc's defaults return them and fault them in
again page by page: one thread trained nano-0.1M at 34k tokens/s with the defaults and 46k with these.
"""

import ctypes

_M_TRIM_THRESHOLD, _M_TOP_PAD, _M_MMAP_THRESHOLD = -1, -2, -3  # malloc.h
KEPT_BYTES = 256 * 2**20
SINGLE_BYTES = 32 * 2**20
"""Larger blocks go back to the kernel at once; glibc accepts no higher limit on 64-bit machines."""


def keep_freed_memory() -> bool:
    """Ask glibc to keep up to `KEPT_BYTES` freed at the top of the heap; False where there is no glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all(
        mallopt(option, value) == 1
        for option, value in (
            (_M_MMAP_THRESHOLD, SINGLE_BYTES),
            (_M_TRIM_THRESHOLD, KEPT_BYTES),
            (_M_TOP_PAD, 16 * 2**20),
        )
    )
