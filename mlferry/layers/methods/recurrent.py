"""Recurrent layers. There is an array per gate; rows of a matrix are outputs."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

from numpy.typing import ArrayLike

from mlferry.layers.methods.table import Params, method
from mlferry.layers.methods.values import floats, gates, recurrent_activation

Arrays = Sequence[ArrayLike] | None  # one per gate


@method(
    "add_simple_rnn(name, W_h, W_x, b, hidden_size, input_size, activation, input_names, "
    "output_names, output_all=False, reverse_input=False)",
    kind="simpleRecurrent",
)
def _simple_rnn(arguments: SimpleNamespace) -> Params:
    """`W_x` is [hidden_size, input_size], `W_h` [hidden_size, hidden_size]."""
    return {
        "inputVectorSize": arguments.input_size,
        "outputVectorSize": arguments.hidden_size,
        "hasBiasVector": arguments.b is not None,
        "sequenceOutput": arguments.output_all,
        "reverseInput": arguments.reverse_input,
        "activation": recurrent_activation(arguments.activation),
        "weightMatrix": floats(arguments.W_x),
        "recursionMatrix": floats(arguments.W_h),
        "biasVector": floats(arguments.b),
    }


_GRU_GATES = ("updateGate", "resetGate", "outputGate")


@method(
    "add_gru(name, W_h, W_x, b, hidden_size, input_size, input_names, output_names, "
    "activation='TANH', inner_activation='SIGMOID_HARD', output_all=False, reverse_input=False)"
)
def _gru(arguments: SimpleNamespace) -> Params:
    """Gates in the order update, reset, output."""
    return {
        "inputVectorSize": arguments.input_size,
        "outputVectorSize": arguments.hidden_size,
        "hasBiasVectors": arguments.b is not None,
        "sequenceOutput": arguments.output_all,
        "reverseInput": arguments.reverse_input,
        "activations": [
            recurrent_activation(arguments.inner_activation),
            recurrent_activation(arguments.activation),
        ],
        **gates(_GRU_GATES, "WeightMatrix", arguments.W_x),
        **gates(_GRU_GATES, "RecursionMatrix", arguments.W_h),
        **gates(_GRU_GATES, "BiasVector", arguments.b),
    }


_LSTM_GATES = ("inputGate", "forgetGate", "outputGate", "blockInput")
_ACTIVATIONS = (
    "inner_activation='SIGMOID', cell_state_update_activation='TANH', output_activation='TANH'"
)
_OPTIONS = "forget_bias=False, coupled_input_forget_gate=False, cell_clip_threshold=50000.0"


@method(
    "add_unilstm(name, W_h, W_x, b, hidden_size, input_size, input_names, output_names, "
    f"{_ACTIVATIONS}, peep=None, output_all=False, {_OPTIONS}, reverse_input=False)",
    kind="uniDirectionalLSTM",
)
def _unilstm(arguments: SimpleNamespace) -> Params:
    """Gates in the order input, forget, output, block input."""
    return {
        "inputVectorSize": arguments.input_size,
        "outputVectorSize": arguments.hidden_size,
        "reverseInput": arguments.reverse_input,
        "params": _lstm_params(arguments),
        "activations": _lstm_activations(arguments),
        "weightParams": _lstm_weights(arguments.W_x, arguments.W_h, arguments.b, arguments.peep),
    }


@method(
    "add_bidirlstm(name, W_h, W_x, b, W_h_back, W_x_back, b_back, hidden_size, input_size, "
    f"input_names, output_names, {_ACTIVATIONS}, peep=None, peep_back=None, output_all=False, "
    f"{_OPTIONS})",
    kind="biDirectionalLSTM",
)
def _bidirlstm(arguments: SimpleNamespace) -> Params:
    """Gates in the order input, forget, output, block input; then those that go backwards."""
    return {
        "inputVectorSize": arguments.input_size,
        "outputVectorSize": arguments.hidden_size,
        "params": _lstm_params(arguments),
        "activationsForwardLSTM": _lstm_activations(arguments),
        "activationsBackwardLSTM": _lstm_activations(arguments),
        "weightParams": [
            _lstm_weights(arguments.W_x, arguments.W_h, arguments.b, arguments.peep),
            _lstm_weights(
                arguments.W_x_back, arguments.W_h_back, arguments.b_back, arguments.peep_back
            ),
        ],
    }


def _lstm_params(arguments: SimpleNamespace) -> Params:
    return {
        "sequenceOutput": arguments.output_all,
        "hasBiasVectors": arguments.b is not None,
        "forgetBias": arguments.forget_bias,
        "hasPeepholeVectors": arguments.peep is not None,
        "coupledInputAndForgetGate": arguments.coupled_input_forget_gate,
        "cellClipThreshold": arguments.cell_clip_threshold,
    }


def _lstm_activations(arguments: SimpleNamespace) -> list[Params]:
    names = (
        arguments.inner_activation,
        arguments.cell_state_update_activation,
        arguments.output_activation,
    )
    return [recurrent_activation(name) for name in names]


def _lstm_weights(matrices: Arrays, recursion: Arrays, biases: Arrays, peepholes: Arrays) -> Params:
    return {
        **gates(_LSTM_GATES, "WeightMatrix", matrices),
        **gates(_LSTM_GATES, "RecursionMatrix", recursion),
        **gates(_LSTM_GATES, "BiasVector", biases),
        **gates(_LSTM_GATES[:3], "PeepholeVector", peepholes),
    }
