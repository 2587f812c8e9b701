"""How a prediction uses the cores: one BLAS thread, and threads of its own."""

from mlferry.lanes import Part, at_most, cores, lane_count, share
from mlferry.runtime.threads.blas import one_thread

__all__ = ["Part", "at_most", "cores", "lane_count", "one_thread", "share"]
