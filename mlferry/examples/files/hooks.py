"""The conversion function of ``digits_stn.h5``, for ``mlferry convert ... --custom hooks.py``."""

import mlferry


def convert_sampler(node):
    """The entry of a ``GridSampler``: its class, and what the class is made with."""
    return mlferry.CustomLayerParams(
        class_name="GridSampler",
        description="samples the image bilinearly at a grid moved by theta",
        parameters={"output_height": node.output_height, "output_width": node.output_width},
    )


custom_conversion_functions = {"GridSampler": convert_sampler}
