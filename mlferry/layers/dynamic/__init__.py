"""Shapes and values that are computed while the network runs."""
