"""Neural networks as ML Programs."""

from mlferry.exporters.program.api import ProgramOptions, opset_of, to_program

__all__ = ["ProgramOptions", "opset_of", "to_program"]
