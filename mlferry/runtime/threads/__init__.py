"""How a prediction uses the cores: one BLAS thread, and threads of its own."""

from mlferry.runtime.threads.blas import one_thread
from mlferry.runtime.threads.lanes import Part, at_most, cores, lane_count, share

__all__ = ["Part", "at_most", "cores", "lane_count", "one_thread", "share"]
