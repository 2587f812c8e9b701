"""Compressed constants, which are decompressed before the program runs."""
