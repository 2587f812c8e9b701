"""Mutated files for every reader: only errors of ours, no crash, no hang, no giant memory.

`make fuzz` runs them by the hundred thousand; `test_fuzz.py` a small slice, and every input that
once showed a fault.
"""
