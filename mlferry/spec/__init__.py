"""The Core ML file format: messages, builder, weights, shapes, versions, checks, files.

Knows nothing of source frameworks and nothing of evaluating a network.
"""
