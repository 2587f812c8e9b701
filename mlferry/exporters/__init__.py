"""Core ML networks in other formats: one package a format."""
