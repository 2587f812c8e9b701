"""Gathering, scattering, sorting and selecting."""
