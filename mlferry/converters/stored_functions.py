"""Functions among the options of a file's layers: their names and options, never their code."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlferry.converters.graph import Attribute
from mlferry.errors import ConversionError

_OPTIONS = ("function", "activation", "recurrent_activation", "mask", "output_shape")


class StoredFunction:
    """A function that a file names, or whose code it holds.

    Attributes:
        __name__: its name in the file; ``"<lambda>"`` if the file holds only code.
    """

    def __init__(self, name: str, option: str) -> None:
        self.__name__ = name
        self._option = option

    def __call__(self, *arguments: object, **options: object) -> Any:
        """Refuse to run: code from a file never runs.

        Raises:
            ConversionError: always.
        """
        raise ConversionError(
            f"the {self._option} {self.__name__!r} comes from a file, whose code is never run: "
            f"pass custom_objects={{{self.__name__!r}: the function}}, or the model in memory"
        )

    def __eq__(self, other: object) -> bool:
        """Whether another function has the same name in the file."""
        return self.__name__ != _LAMBDA and getattr(other, "__name__", None) == self.__name__

    def __hash__(self) -> int:
        return hash(self.__name__)

    def __repr__(self) -> str:
        return f"<function {self.__name__} of a file>"


_LAMBDA = "<lambda>"


def functions_of(config: Mapping[str, Any], custom_objects: Mapping[str, Any]) -> dict[str, Any]:
    """The functions among the options of a layer.

    Args:
        config: the layer's options in the file.
        custom_objects: the user's own functions by name, which replace those of the file.
    """
    entries = {}
    for option in _OPTIONS:
        name = _name(config.get(option), named=config.get(f"{option}_type") == "function")
        if name:
            own = custom_objects.get(name)
            entries[option] = own if callable(own) else StoredFunction(name, option)
    return entries


def _name(value: Attribute, *, named: bool) -> str:
    """The name of a function in one of the forms that Keras writes; "" if it is not one."""
    if isinstance(value, Mapping):
        kind, inner = value.get("class_name"), value.get("config")
        if kind == "__lambda__":
            return _LAMBDA
        return str(inner).rsplit(">", 1)[-1] if kind == "function" else ""
    if isinstance(value, list | tuple):  # marshalled code, defaults, closure
        return _LAMBDA if len(value) == 3 and isinstance(value[0], str) else ""
    return value if isinstance(value, str) and named else ""
