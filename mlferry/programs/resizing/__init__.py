"""Upsampling, resizing, cropping and sampling of height and width."""
