"""`mlferry.verify`: whether a Core ML model still gives what its source gives."""

from mlferry.models.verify.api import Verification, verify

__all__ = ["Verification", "verify"]
