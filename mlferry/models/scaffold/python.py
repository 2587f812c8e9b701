"""Python: `CustomLayer` and `CustomModel`, for mlferry's own runtime."""

from __future__ import annotations

import keyword
from collections.abc import Iterator

from mlferry.models.scaffold.needs import Need, NeededParameter
from mlferry.text import identifier, printable


def python_class(need: Need) -> str:
    """The file of one class."""
    lines = _model(need) if need.is_model else _layer(need)
    return "\n".join(map(printable, lines)) + "\n"


def _head(need: Need, base: str, register: str) -> Iterator[str]:
    text = " ".join(need.descriptions) or f"{need.class_name} of the model."
    text = printable(" ".join(text.split())).replace("\\", "\\\\").replace('"""', "'''").rstrip('"')
    yield '"""Importing this module registers the class, so that the model runs here."""'
    yield ""
    yield "import mlferry"
    yield ""
    yield ""
    yield f"@mlferry.{register}({need.class_name!r})"
    yield f"class {need.identifier}(mlferry.{base}):"
    yield f'    """{text}"""'
    yield ""
    if need.parameters:
        yield "    def __init__(self, parameters):"
        yield "        super().__init__(parameters)"
        for parameter in need.parameters:
            lookup = f".get({parameter.key!r})" if parameter.optional else f"[{parameter.key!r}]"
            example = f"  # {parameter.kind}, e.g. {parameter.example!r}"
            yield f"        self.{_name(parameter)} = parameters{lookup}{example}"
        yield ""


def _layer(need: Need) -> Iterator[str]:
    yield from _head(need, "CustomLayer", "register_custom_layer")
    if need.weights:
        names = ", ".join(f"self.weight{index}" for index in range(len(need.weights)))
        yield "    def set_weights(self, weights):"
        flat = "" if need.weight_shapes else ", flat"
        for index in range(len(need.weights)):
            yield f"        # weight {index}: {need.described(index)}{flat}"
        yield f"        {names}{',' if len(need.weights) == 1 else ''} = weights"
        yield ""
    _, inputs, outputs = need.uses[0]
    yield "    def output_shapes(self, input_shapes):"
    first = ", ".join(["input_shapes[0]"] * outputs) if inputs else "(1,)"
    same = "list(input_shapes)" if inputs == outputs else f"[{first}]"
    yield f"        return {same}  # inputs: {inputs}, outputs: {outputs}; one shape each"
    yield ""
    yield "    def evaluate(self, inputs):"
    yield f'        raise NotImplementedError("{need.identifier}.evaluate is not written yet")'


def _model(need: Need) -> Iterator[str]:
    yield from _head(need, "CustomModel", "register_custom_model")
    yield "    def predict(self, inputs):"
    yield f"        # takes {', '.join(f'{n!r}: {t}' for n, t in need.inputs.items())}"
    yield f"        # gives {', '.join(f'{n!r}: {t}' for n, t in need.outputs.items())}"
    yield f'        raise NotImplementedError("{need.identifier}.predict is not written yet")'


def _name(parameter: NeededParameter) -> str:
    name = identifier(parameter.key)
    return f"{name}_" if keyword.iskeyword(name) or name in ("parameters", "weights") else name
