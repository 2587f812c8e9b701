"""Upsampling and resizing of height and width."""
