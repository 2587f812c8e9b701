"""Normalization over channels, axes and neighbours."""
