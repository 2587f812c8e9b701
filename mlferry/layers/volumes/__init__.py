"""Convolution and pooling over depth, height and width."""
