"""Core ML's messages, generated from the `.proto` files of this folder by ``make schema``."""
