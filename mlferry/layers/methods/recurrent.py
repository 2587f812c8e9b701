"""Recurrent layers. Arrays come one a gate; rows of a matrix are the outputs."""

from __future__ import annotations

from typing import Any

from mlferry.layers.methods.table import Params, method
from mlferry.layers.methods.values import floats, gates, recurrent_activation


@method(
    "add_simple_rnn(name, W_h, W_x, b, hidden_size, input_size, activation, input_names, "
    "output_names, output_all=False, reverse_input=False)",
    kind="simpleRecurrent",
)
def _simple_rnn(given: Any) -> Params:
    """`W_x` is [hidden_size, input_size], `W_h` [hidden_size, hidden_size]."""
    return {
        "inputVectorSize": given.input_size,
        "outputVectorSize": given.hidden_size,
        "hasBiasVector": given.b is not None,
        "sequenceOutput": given.output_all,
        "reverseInput": given.reverse_input,
        "activation": recurrent_activation(given.activation),
        "weightMatrix": floats(given.W_x),
        "recursionMatrix": floats(given.W_h),
        "biasVector": floats(given.b),
    }


_GRU_GATES = ("updateGate", "resetGate", "outputGate")


@method(
    "add_gru(name, W_h, W_x, b, hidden_size, input_size, input_names, output_names, "
    "activation='TANH', inner_activation='SIGMOID_HARD', output_all=False, reverse_input=False)"
)
def _gru(given: Any) -> Params:
    """Gates in the order update, reset, output."""
    return {
        "inputVectorSize": given.input_size,
        "outputVectorSize": given.hidden_size,
        "hasBiasVectors": given.b is not None,
        "sequenceOutput": given.output_all,
        "reverseInput": given.reverse_input,
        "activations": [
            recurrent_activation(given.inner_activation),
            recurrent_activation(given.activation),
        ],
        **gates(_GRU_GATES, "WeightMatrix", given.W_x),
        **gates(_GRU_GATES, "RecursionMatrix", given.W_h),
        **gates(_GRU_GATES, "BiasVector", given.b),
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
def _unilstm(given: Any) -> Params:
    """Gates in the order input, forget, output, block input."""
    return {
        "inputVectorSize": given.input_size,
        "outputVectorSize": given.hidden_size,
        "reverseInput": given.reverse_input,
        "params": _lstm_params(given),
        "activations": _lstm_activations(given),
        "weightParams": _lstm_weights(given.W_x, given.W_h, given.b, given.peep),
    }


@method(
    "add_bidirlstm(name, W_h, W_x, b, W_h_back, W_x_back, b_back, hidden_size, input_size, "
    f"input_names, output_names, {_ACTIVATIONS}, peep=None, peep_back=None, output_all=False, "
    f"{_OPTIONS})",
    kind="biDirectionalLSTM",
)
def _bidirlstm(given: Any) -> Params:
    """Gates in the order input, forget, output, block input; then those that go backwards."""
    return {
        "inputVectorSize": given.input_size,
        "outputVectorSize": given.hidden_size,
        "params": _lstm_params(given),
        "activationsForwardLSTM": _lstm_activations(given),
        "activationsBackwardLSTM": _lstm_activations(given),
        "weightParams": [
            _lstm_weights(given.W_x, given.W_h, given.b, given.peep),
            _lstm_weights(given.W_x_back, given.W_h_back, given.b_back, given.peep_back),
        ],
    }


def _lstm_params(given: Any) -> Params:
    return {
        "sequenceOutput": given.output_all,
        "hasBiasVectors": given.b is not None,
        "forgetBias": given.forget_bias,
        "hasPeepholeVectors": given.peep is not None,
        "coupledInputAndForgetGate": given.coupled_input_forget_gate,
        "cellClipThreshold": given.cell_clip_threshold,
    }


def _lstm_activations(given: Any) -> list[Params]:
    names = (given.inner_activation, given.cell_state_update_activation, given.output_activation)
    return [recurrent_activation(name) for name in names]


def _lstm_weights(matrices: Any, recursion: Any, biases: Any, peepholes: Any) -> Params:
    return {
        **gates(_LSTM_GATES, "WeightMatrix", matrices),
        **gates(_LSTM_GATES, "RecursionMatrix", recursion),
        **gates(_LSTM_GATES, "BiasVector", biases),
        **gates(_LSTM_GATES[:3], "PeepholeVector", peepholes),
    }
