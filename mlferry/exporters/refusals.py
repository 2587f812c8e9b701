"""The layers that an export cannot express, and the error that names them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from mlferry.errors import UnsupportedLayersError
from mlferry.spec.proto import neural_network_pb2 as nn
from mlferry.text import paragraph


@dataclass(frozen=True)
class Refusal:
    """A layer that cannot be expressed; `follows` if only an earlier refusal is the cause."""

    layer: nn.NeuralNetworkLayer
    reason: str
    follows: bool = False

    @property
    def kind(self) -> str:
        """The kind of the layer."""
        return self.layer.WhichOneof("layer") or ""

    def __str__(self) -> str:
        return f"{self.kind} {self.layer.name!r}: {self.reason}"


def check_refusals(refusals: Iterable[Refusal], target: str, advice: Iterable[str]) -> None:
    """Raise an `UnsupportedLayersError` that names every layer which cannot be expressed.

    A round of a loop may have been written several times; its layers are named once.

    Args:
        refusals: what was refused, in order; nothing is raised if there is none.
        target: what cannot express them, as the start of a sentence.
        advice: lines that say what to do instead.
    """
    shown = {str(refusal): refusal for refusal in refusals if not refusal.follows}
    if not shown:
        return
    layers = "layer" if len(shown) == 1 else "layers"
    raise UnsupportedLayersError(
        paragraph(
            [
                f"{target} cannot express {len(shown)} {layers}:",
                *(f"  - {text}" for text in shown),
                *advice,
            ]
        ),
        [(refusal.layer.name, refusal.kind, refusal.reason) for refusal in shown.values()],
    )
