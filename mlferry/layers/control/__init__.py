"""Branches, loops and custom layers."""
