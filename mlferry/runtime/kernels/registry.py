"""The registry of kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mlferry.registry import Registry

Array = NDArray[np.float32]
Kernel = Callable[..., Any]

KERNELS: Registry[Kernel] = Registry("kernel")
kernel = KERNELS.register
