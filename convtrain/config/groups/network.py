"""The network: its layers, and how its weights are initialised."""

from pydantic import Field

from convtrain.config.section import FileName, Section


class Network(Section):
    name: FileName = Field(
        description="name of the network and of its runs' folder: letters, digits, _ + - ."
    )
    layers: list[object] = Field(
        min_length=1, description="list of layers, each named by its torch.nn class"
    )
    blocks: dict[str, object] = Field(default={}, description="block name: layers and parameters")
    init: dict[str, object] = Field(
        description="parameter name pattern: function of torch.nn.init, with arguments"
    )
    parametrize: dict[str, object] = Field(
        default={}, description="parameter name pattern: weight_norm, spectral_norm or orthogonal"
    )
    prune: dict[str, object] = Field(
        default={}, description="parameter name pattern: function of torch.nn.utils.prune"
    )
