"""Normalization over channels, axes and neighbours, scale and bias."""
