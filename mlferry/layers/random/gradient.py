"""Layers that draw random values: no gradient passes them."""

from __future__ import annotations

from mlferry.layers.gradients import no_gradient

no_gradient(
    *(
        f"random{name}{form}"
        for name in ("Normal", "Uniform", "Bernoulli")
        for form in ("Like", "Static", "Dynamic")
    ),
    "categoricalDistribution",
)
