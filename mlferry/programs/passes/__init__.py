"""Passes over whole programs before they are written."""
