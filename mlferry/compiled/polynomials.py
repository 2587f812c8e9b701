"""Coefficients of approximations, which NumPy's functions share."""

from __future__ import annotations

ERF = (
    1.4815639522816902e-07,
    -5.779412433217774e-06,
    8.830475819853922e-05,
    -0.0006214337970574013,
    -0.0001903031829040051,
    0.10276880754226221,
    1.1283791670955126,
)
"""atanh(erf(x)) / x by powers of x^2, the highest first.

They were fitted to the least largest error of erf, which is 8e-8 before rounding. Beyond 4 the
polynomial only grows, and tanh is 1.
"""
