"""Prints settings under which the products of matrices run on other kernels than this processor's own.

What a test compares must hold on any processor; the same tests under these settings are as good as a second machine.
An older kernel runs everywhere, so where the own one is Haswell's already, Sandy Bridge's is taken.
"""

import os

os.environ.pop("OPENBLAS_CORETYPE", None)  # what the machine would choose by itself
os.environ.pop("OPENBLAS_L2_SIZE", None)

import numpy  # noqa: F401 - loads the library that is asked about
from threadpoolctl import threadpool_info

own = {library.get("architecture") for library in threadpool_info()}
kernel = "Sandybridge" if own & {"Haswell", "Zen"} else "Haswell"
isa = "SSE41" if kernel == "Sandybridge" else "AVX2"
print(f"OPENBLAS_CORETYPE={kernel} DNNL_MAX_CPU_ISA={isa}")
