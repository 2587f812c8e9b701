"""Layers that read and write at indices, make new arrays, and draw random numbers."""

from __future__ import annotations

from mlferry.layers.methods.table import row
from mlferry.layers.methods.values import choice_as, number_as

_MODES = {name: f"SCATTER_{name}" for name in ("UPDATE", "ADD", "SUB", "MUL", "DIV", "MAX", "MIN")}
_scatter_mode = choice_as("mode", _MODES)

row("add_gather(name, input_names, output_name, axis=0)")
row("add_gather_along_axis(name, input_names, output_name, axis=0)")
row("add_gather_nd(name, input_names, output_name)")
row("add_scatter(name, input_names, output_name, axis=0, mode='UPDATE')", mode=_scatter_mode)
row(
    "add_scatter_along_axis(name, input_names, output_name, axis=0, mode='UPDATE')",
    mode=_scatter_mode,
)
row("add_scatter_nd(name, input_names, output_name, mode='UPDATE')", mode=_scatter_mode)
row("add_where_nonzero(name, input_name, output_name)", kind="whereNonZero")
row("add_matrix_band_part(name, input_name, output_name, num_lower=-1, num_upper=-1)")
row("add_lower_triangular(name, input_name, output_name, k=0)")
row("add_upper_triangular(name, input_name, output_name, k=0)")
row(
    "add_one_hot(name, input_names, output_name, one_hot_vector_size=None, axis=-1, "
    "on_value=1.0, off_value=0.0)"
)

row("add_fill_like(name, input_name, output_name, value=0.0)")
row("add_fill_static(name, output_name, output_shape, value=0.0)", output_shape="targetShape")
row("add_fill_dynamic(name, input_name, output_name, value=0.0)")
row(
    "add_range_static(name, output_name, input_names=None, end=1, start=0, step=1)",
    end=number_as("endValue"),
    start=number_as("startValue"),
    step=number_as("stepSizeValue"),
)
row(
    "add_range_dynamic(name, input_names, output_name, start=0, step=1)",
    start=number_as("startValue"),
    step=number_as("stepSizeValue"),
)

for _name, _options in {
    "normal": "mean=0.0, stddev=0.0, seed=-1",
    "uniform": "minval=0.0, maxval=1.0, seed=-1",
    "bernoulli": "prob=0.5, seed=-1",
}.items():
    _fields = {"stddev": "stdDev"} if _name == "normal" else {}
    _fields |= {"minval": "minVal", "maxval": "maxVal"} if _name == "uniform" else {}
    row(f"add_random_{_name}_like(name, input_name, output_name, {_options})", "", **_fields)
    row(f"add_random_{_name}_static(name, output_name, output_shape, {_options})", "", **_fields)
    row(f"add_random_{_name}_dynamic(name, input_names, output_name, {_options})", "", **_fields)

row(
    "add_categorical_distribution(name, input_name, output_name, num_samples, is_logits=True, "
    "eps=1e-10, temperature=1.0, seed=-1)"
)
