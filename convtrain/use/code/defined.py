"""Functions that a file defines where its network needs them."""

from convtrain.use.code.weights import DRAWN

STOCHASTIC_DEPTH, OF_BATCH = "stochastic_depth", "stochastic_depth_of_batch"

_DROP = '''
def {name}(x, p, training):
    """In training, zero {what} with probability p, and scale up the others."""
    if not training or p == 0:
        return x
    noise = x.new_empty({shape}).bernoulli_(1 - p)
    return x * (noise / (1 - p) if p < 1 else noise)
'''

HELPERS = {
    DRAWN: '''
def draw_like_torch(weight, bias=None):
    """Draw the weights of a layer as nn.Conv2d and nn.Linear do: with one seed, the same bits."""
    nn.init.kaiming_uniform_(weight, a=math.sqrt(5))  # uniform, at most 1 / sqrt(inputs)
    if bias is not None:
        bound = 1 / math.sqrt(weight[0].numel())
        nn.init.uniform_(bias, -bound, bound)
''',
    STOCHASTIC_DEPTH: _DROP.format(
        name=STOCHASTIC_DEPTH, what="each example", shape="len(x), *[1] * (x.ndim - 1)"
    ),
    OF_BATCH: _DROP.format(name=OF_BATCH, what="whole batches", shape="[1] * x.ndim"),
}
"""Name of a function to its text."""
