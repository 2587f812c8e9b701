"""Layers that draw random values: no gradient passes them."""

from __future__ import annotations

from mlferry.layers.gradients import no_gradient
from mlferry.layers.random.definition import RANDOM

no_gradient(*RANDOM, "categoricalDistribution")
