"""Convolution, transposed convolution and pooling."""
