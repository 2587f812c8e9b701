"""The rows of the table: a method's signature, the kind of layer that it adds, and its fields.

Methods, arguments and defaults are those of coremltools. An argument sets the field of its own name
(``local_size`` is ``localSize``), unless the row says otherwise: by the name of another field, or
by a function from the value to fields.
"""

from __future__ import annotations

import ast
import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from mlferry.errors import MlferryError, SpecError, context
from mlferry.registry import Registry

if TYPE_CHECKING:
    from google.protobuf.message import Message

Params = dict[str, Any]
Setter = str | Callable[[Any], Params]


@dataclass(frozen=True)
class NewLayer:
    """A layer to add: its kind and its parameters, for `mlferry.spec.fields.fill`.

    Attributes:
        kind: Core ML's name of the kind.
        params: the fields of its parameters, or the message itself.
        layer_fields: fields of the layer itself: the ranks and shapes that it declares.
    """

    kind: str
    params: Params | Message = field(default_factory=dict)
    layer_fields: Params = field(default_factory=dict)


@dataclass(frozen=True)
class Method:
    """One method of the builder.

    Attributes:
        signature: without ``self``.
        make: maps the arguments, as attributes, to the layer.
        doc: describes the layer and the arguments.
    """

    name: str
    signature: inspect.Signature
    make: Callable[[SimpleNamespace], NewLayer]
    doc: str

    @property
    def bound_signature(self) -> inspect.Signature:
        """The signature as that of a method."""
        this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        return inspect.Signature([this, *self.signature.parameters.values()])

    def layer(self, *args: Any, **kwargs: Any) -> tuple[str, list[str], list[str], NewLayer]:
        """The name, inputs and outputs of a call, and its layer.

        Raises:
            SpecError: an argument does not fit.
            TypeError: an argument is missing, or there is no such argument.
        """
        try:
            bound = self.signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self.name}(): {error}") from None
        bound.apply_defaults()
        arguments = SimpleNamespace(**bound.arguments)
        with context(f"adding the layer {arguments.name!r} with {self.name}"):
            try:
                result = self.make(arguments)
            except MlferryError:
                raise
            except (TypeError, ValueError, AttributeError, LookupError) as error:
                raise SpecError(f"an argument does not fit: {error}") from error
        inputs, outputs = _blobs(arguments, "input"), _blobs(arguments, "output")
        return arguments.name, inputs, outputs, result


METHODS: Registry[Method] = Registry("method")

_NOT_FIELDS = ("name", "input_name", "input_names", "output_name", "output_names")


def row(signature: str, kind: str = "", **setters: Setter) -> None:
    """Add a method whose arguments are fields.

    Args:
        signature: ``add_lrn(name, input_name, output_name, alpha, k=1.0)``.
        kind: of the layer; by default the method's name.
        setters: how to set arguments that are not fields of the same name.
    """
    name, parsed = _parsed(signature)
    layer_kind = kind or camel(name.removeprefix("add_"))
    fields: dict[str, Setter] = {
        argument: setters.get(argument, camel(argument))
        for argument in parsed.parameters
        if argument not in _NOT_FIELDS
    }

    def make(arguments: SimpleNamespace) -> NewLayer:
        params: Params = {}
        for argument, setter in fields.items():
            value = getattr(arguments, argument)
            params |= {setter: value} if isinstance(setter, str) else setter(value)
        return NewLayer(layer_kind, params)

    doc = f"Add a layer of the kind `{layer_kind}`."
    METHODS.register(name)(Method(name, parsed, make, doc))


def method(
    signature: str, kind: str = ""
) -> Callable[
    [Callable[[SimpleNamespace], NewLayer | Params]], Callable[[SimpleNamespace], NewLayer | Params]
]:
    """Add a method by a function from the arguments to fields, or to a `NewLayer`."""
    name, parsed = _parsed(signature)
    layer_kind = kind or camel(name.removeprefix("add_"))

    def register(
        function: Callable[[SimpleNamespace], NewLayer | Params],
    ) -> Callable[[SimpleNamespace], NewLayer | Params]:
        @functools.wraps(function)
        def make(arguments: SimpleNamespace) -> NewLayer:
            result = function(arguments)
            return result if isinstance(result, NewLayer) else NewLayer(layer_kind, result)

        doc = f"Add a layer of the kind `{layer_kind}`.\n\n{function.__doc__ or ''}".strip()
        METHODS.register(name)(Method(name, parsed, make, doc))
        return function

    return register


def camel(name: str) -> str:
    """The field or kind for an argument or a method."""
    first, *others = name.split("_")
    return first + "".join("ND" if part == "nd" else part[:1].upper() + part[1:] for part in others)


def one_of(choices: Mapping[Any, Any], value: object, argument: str) -> Any:
    """The value of a choice; text is compared without case.

    Raises:
        SpecError: there is no such choice.
    """
    folded = value.upper() if isinstance(value, str) else value
    if folded not in choices:
        raise SpecError(f"{argument}={value!r}: possible are {', '.join(map(repr, choices))}")
    return choices[folded]


def _parsed(text: str) -> tuple[str, inspect.Signature]:
    """The name and signature of ``name(argument, other=default)``."""
    definition = ast.parse(f"def {text}: ...").body[0]
    assert isinstance(definition, ast.FunctionDef)
    arguments = definition.args
    required = len(arguments.args) - len(arguments.defaults)
    defaults = [inspect.Parameter.empty] * required
    defaults += [ast.literal_eval(default) for default in arguments.defaults]
    parameters = [
        inspect.Parameter(argument.arg, inspect.Parameter.POSITIONAL_OR_KEYWORD, default=default)
        for argument, default in zip(arguments.args, defaults, strict=True)
    ]
    if arguments.kwarg is not None:
        parameters.append(inspect.Parameter(arguments.kwarg.arg, inspect.Parameter.VAR_KEYWORD))
    return definition.name, inspect.Signature(parameters)


def _blobs(arguments: SimpleNamespace, direction: str) -> list[str]:
    """The blobs that a call names, one or several."""
    value = getattr(arguments, f"{direction}_names", None)
    if value is None:
        value = getattr(arguments, f"{direction}_name", None)
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)
