"""Neural networks as ML Programs."""

from mlferry.exporters.program.api import ProgramOptions, to_program

__all__ = ["ProgramOptions", "to_program"]
