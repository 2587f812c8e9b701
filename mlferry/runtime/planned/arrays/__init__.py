"""Parts of a network without maps, such as attention, dense layers and LSTMs.

Where Numba is installed, they are planned once for each set of shapes, as convolutional parts are:
one table of tasks, which compiled code goes through. Arrays lie in memory that is reused as soon
as nothing reads it any more; reshaping and transposing only look at it in another way; and sums
and limits are applied by the product before them.
"""

from __future__ import annotations
