"""Parts of a network, planned once for each set of input shapes and run many times.

Inside a convolutional part samples are channels-last, so that a 1 x 1 convolution is one matrix
product without a copy. Buffers are allocated once, with the border that their readers pad;
normalization, bias, the sum with a shortcut and activations are done by the layer before them while
its rows are in the cache; parts of a concatenation are written to their places directly.

`regions` finds the parts, `plan` makes one ready for a shape, the other modules compute. Other
parts, such as attention and LSTMs, are those of `arrays`.
"""

from __future__ import annotations
