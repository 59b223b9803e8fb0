"""The network: its layers, and how its weights are initialised."""

from collections.abc import Iterator, Mapping
from importlib import import_module

from pydantic import Field

from convtrain.config.mistakes import Mistake
from convtrain.config.section import FileName
from convtrain.config.targets import Trusting
from convtrain.config.trust import LAYER, is_dotted, refusal


class Network(Trusting):
    name: FileName = Field(
        description="name of the network and of its runs' folder: letters, digits, _ + - ."
    )
    layers: list[object] = Field(
        min_length=1,
        description="list of layers, each named by its torch.nn class, or mypackage.MyLayer",
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

    @property
    def has_own_layers(self) -> bool:
        return any(own_layers({"layers": self.layers, "blocks": self.blocks}))

    def mistakes(self) -> Iterator[Mistake]:
        """Import a user's own layers and check all arguments; NetworkError names a mistake."""
        if self.has_own_layers:
            import_module("convtrain.network.expand").expand(self.layers, self.blocks, self._trust)
        return iter(())


def own_layers(network: object, key: str = "network") -> Iterator[tuple[str, str]]:
    """Yield the dotted key and the import path of each layer of a user's own.

    Such a layer is an entry of a list whose name has a dot, as no other layer's has.
    """
    if isinstance(network, list):
        for index, item in enumerate(network):
            names = item if isinstance(item, Mapping) else [item]
            own = [name for name in names if is_dotted(name)]
            yield from ((f"{key}.{index}", name) for name in own)
            if not own:  # else its lists are arguments
                yield from own_layers(item, f"{key}.{index}")
    elif isinstance(network, Mapping):
        for name, inside in network.items():
            yield from own_layers(inside, f"{key}.{name}")


def layer_mistakes(network: object, trust: object) -> Iterator[Mistake]:
    """Yield a mistake for every layer of a user's own that may not be named."""
    if isinstance(network, Mapping):
        declared = {name: network.get(name) for name in ("layers", "blocks")}
        for key, path in own_layers(declared):
            if (reason := refusal(path, trust, LAYER)) is not None:
                yield Mistake(key, reason)
