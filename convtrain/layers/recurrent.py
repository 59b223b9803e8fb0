"""Recurrent layers, by the operations that ``torch.nn`` calls; ``torch.nn.functional`` has none.

L is the length of the sequence, N the size of the batch. A packed sequence has varying lengths.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from convtrain.layers.entry import Entry, batch_first, check_rank, features


def recurrent(
    function,
    input: Tensor | PackedSequence,
    hx=None,
    *,
    parameters,
    mode,
    input_size,
    hidden_size,
    proj_size,
    num_layers,
    bias,
    batch_first,
    dropout,
    bidirectional,
    training,
):
    """Return the output of all layers, packed if the input is, and the states after the last step.

    Args:
        function: ``torch.lstm``, ``torch.gru``, or for ``nn.RNN`` a function for each ``mode``.
        input: (L, N, features), with ``batch_first`` (N, L, features), (L, features), or packed.
        hx: the initial state, for an LSTM a pair; zeros if None.
    """
    function = function[mode] if isinstance(function, dict) else function
    batch_sizes = order = back = None
    alone, batch_dim = False, 0 if batch_first else 1
    if isinstance(input, PackedSequence):
        data, batch_sizes, order, back = input
        batch = int(batch_sizes[0])
    else:
        check_rank(input, 2, 3)
        alone = input.dim() == 2
        data = input.unsqueeze(batch_dim) if alone else input
        batch = data.shape[batch_dim]
    if data.shape[-1] != input_size:
        raise RuntimeError(f"input_size={input_size}, but the input has {data.shape[-1]} features")

    depth = num_layers * (2 if bidirectional else 1)
    shapes = [(depth, batch, proj_size or hidden_size), (depth, batch, hidden_size)]
    shapes = shapes if mode == "LSTM" else shapes[:1]
    if hx is None:
        states = [data.new_zeros(shape) for shape in shapes]
    else:
        states = [_permute(state, order) for state in (hx if mode == "LSTM" else [hx])]
        states = [state.unsqueeze(1) for state in states] if alone else states
    for state, shape in zip(states, shapes, strict=True):
        if state.shape != shape:
            raise RuntimeError(f"expected a state of {shape}, got {tuple(state.shape)}")

    first = states if mode == "LSTM" else states[0]
    settings = (parameters, bias, num_layers, dropout, training, bidirectional)
    if batch_sizes is not None:
        output, *after = function(data, batch_sizes, first, *settings)
        output = PackedSequence(output, batch_sizes, order, back)
    else:
        output, *after = function(data, first, *settings, batch_first)
    if alone:
        output = output.squeeze(batch_dim)
        after = [state.squeeze(1) for state in after]
    after = [_permute(state, back) for state in after]
    return output, tuple(after) if mode == "LSTM" else after[0]


def _permute(state: Tensor, order: Tensor | None) -> Tensor:
    return state if order is None else state.index_select(1, order)


def recurrent_cell(function, input: Tensor, hx, weights: tuple[Tensor, ...], size: int):
    """Compute one step of (N, features) or (features). An LSTM's state is a pair of tensors."""
    alone, pair = input.dim() == 1, function is torch.lstm_cell
    check_rank(input, 1, 2)
    if alone:
        input = input.unsqueeze(0)
    if hx is None:
        states = [input.new_zeros(len(input), size)] * (2 if pair else 1)
    else:
        states = [state.unsqueeze(0) if alone else state for state in (hx if pair else [hx])]
    after = function(input, states if pair else states[0], *weights)
    if not alone:
        return after
    return tuple(state.squeeze(0) for state in after) if pair else after.squeeze(0)


def rnn_cell(input, hx=None, *, weight_ih, weight_hh, bias_ih, bias_hh, hidden_size, nonlinearity):
    function = {"tanh": torch.rnn_tanh_cell, "relu": torch.rnn_relu_cell}[nonlinearity]
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return recurrent_cell(function, input, hx, weights, hidden_size)


def gated_cell(function, input, hx=None, *, weight_ih, weight_hh, bias_ih, bias_hh, hidden_size):
    weights = (weight_ih, weight_hh, bias_ih, bias_hh)
    return recurrent_cell(function, input, hx, weights, hidden_size)


PLAIN = {"RNN_TANH": torch.rnn_tanh, "RNN_RELU": torch.rnn_relu}
IN = {"input_size": features}
SEQUENCE_IN = {**IN, "batch_first": batch_first}

LAYERS = (
    Entry(nn.RNN, partial(recurrent, PLAIN), infer=SEQUENCE_IN),
    Entry(nn.LSTM, partial(recurrent, torch.lstm), infer=SEQUENCE_IN),
    Entry(nn.GRU, partial(recurrent, torch.gru), infer=SEQUENCE_IN),
    Entry(nn.RNNCell, rnn_cell, infer=IN),
    Entry(nn.LSTMCell, partial(gated_cell, torch.lstm_cell), infer=IN),
    Entry(nn.GRUCell, partial(gated_cell, torch.gru_cell), infer=IN),
)
