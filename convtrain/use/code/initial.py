"""Write what a network declares of its parameters: ``init``, ``parametrize`` and ``prune``.

A pattern of names is written as a condition on the layers that gives the same parameters, as people
write it; where there is none, each parameter is named.
"""

import inspect
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import nn

from convtrain.errors import ConfigError
from convtrain.models.parameters import FUNCTIONS
from convtrain.text import matches
from convtrain.use.code.calls import Style
from convtrain.use.code.expressions import literal
from convtrain.use.code.tensor_names import FileNames

MODULES = {"parametrize": "nn.utils.parametrizations", "prune": "nn.utils.prune"}
CONSTANT = ("zeros", "ones", "constant", "eye", "dirac")  # draw no random numbers
OTHER_ORDER = "# The distributions of the run; its numbers differ, because its order does."
FEW = 2  # parameters that are named one by one


Words = list[str] | None


class Parameter(NamedTuple):
    """A parameter of the network."""

    key: str  # in the run
    owner: type[nn.Module]

    @property
    def tensor(self) -> str:
        return self.key.rpartition(".")[2]


class Rule(NamedTuple):
    """A function of torch for some parameters."""

    name: str
    arguments: Mapping[str, object]
    parameters: list[Parameter]


def read_rules(key: str, declared: Mapping[str, object], parameters: list[Parameter]) -> list[Rule]:
    """Return the functions of a section with the parameters that they are for."""
    rules = []
    for pattern, how in declared.items():
        name, arguments = next(iter(how.items())) if isinstance(how, Mapping) else (str(how), {})
        chosen = [each for each in parameters if matches(each.key, [pattern])]
        rules.append(Rule(str(name), _shortened(key, str(name), arguments or {}), chosen))
    return rules


def _shortened(key: str, name: str, arguments: Mapping[str, object]) -> dict[str, object]:
    known = inspect.signature(FUNCTIONS[key][name]).parameters
    return {k: v for k, v in arguments.items() if k not in known or v != known[k].default}


def initialisation(
    rules: Sequence[Rule], parameters: Sequence[Parameter], names: FileNames, style: Style
) -> list[str]:
    """Return the statements that initialise the weights after the layers are made.

    They draw the random numbers in the order of the run. Where that order is lost, because a class
    lists its own Parameters before those of the classes in it, a comment says so.
    """
    found = [_words(rule, parameters, names, style) for rule in rules]
    known = [words for words in found if words is not None]
    if sum(len(rule.parameters) for rule in rules) <= FEW or len(known) < len(rules):
        return [line for rule in rules for line in _one_by_one(rule, names)]
    in_file = names.in_order(parameters, lambda each: each.key) if style != "nn" else parameters
    if _draws_in_order(rules, in_file):
        return _loop(rules, known, parameters, style)
    if all(_draws_in_order([rule], in_file) for rule in rules):
        loops = [_loop([r], [w], parameters, style) for r, w in zip(rules, known, strict=True)]
        return [line for loop in loops for line in loop]
    return [OTHER_ORDER, *_loop(rules, known, parameters, style)]


def _one_by_one(rule: Rule, names: FileNames) -> list[str]:
    return [_call(rule, names.attribute(each.key)) for each in rule.parameters]


def _call(rule: Rule, subject: str) -> str:
    given = [f"{key}={literal(value)}" for key, value in rule.arguments.items()]
    return f"nn.init.{rule.name}_({', '.join([subject, *given])})"


def _words(rule: Rule, parameters: Sequence[Parameter], names: FileNames, style: Style) -> Words:
    """Return the classes, or the first letters of the names, of the layers of a rule.

    None if other layers have them, too.
    """
    if len({each.tensor for each in rule.parameters}) != 1:
        return None
    tensor = rule.parameters[0].tensor
    alike = [each for each in parameters if each.tensor == tensor]
    if style == "nn":
        owners = list(dict.fromkeys(each.owner for each in rule.parameters))
        same = [each for each in alike if each.owner in owners]
        is_torch = all(owner.__module__.startswith("torch.nn.") for owner in owners)
        return (
            [f"nn.{owner.__name__}" for owner in owners]
            if same == rule.parameters and is_torch
            else None
        )

    def layer_of(each: Parameter) -> str:
        return names.key(each.key).rpartition(".")[2].rpartition("_")[0]

    stems = sorted({layer_of(each).rstrip("0123456789") for each in rule.parameters})
    same = [each for each in alike if layer_of(each).startswith(tuple(stems))]
    return stems if same == rule.parameters and "" not in stems else None


def _draws_in_order(rules: Sequence[Rule], parameters: Sequence[Parameter]) -> bool:
    """Tell whether one loop over the layers draws the random numbers in the order of the rules."""
    drawing = [rule for rule in rules if rule.name not in CONSTANT]
    by_rule = [(each.key, rule.name) for rule in drawing for each in rule.parameters]
    by_layer = [
        (each.key, rule.name) for each in parameters for rule in drawing if each in rule.parameters
    ]
    return by_rule == by_layer


def _loop(
    rules: Sequence[Rule], words: Sequence[list[str]], parameters: Sequence[Parameter], style: Style
) -> list[str]:
    """Write one loop over the layers, or in the functional style over the parameters."""
    lines: list[str] = []
    if style == "functional":
        alike: dict[tuple[str, str], list[str]] = {}
        for rule, stems in zip(rules, words, strict=True):
            key = rule.parameters[0].tensor, _call(rule, "parameter")
            alike[key] = [*alike.get(key, []), *stems]
        for (tensor, call), stems in alike.items():
            beginning = literal(stems if len(stems) > 1 else stems[0])
            is_it = f'layer.startswith({beginning}) and tensor == "{tensor}"'
            lines += [f"    {'elif' if lines else 'if'} {is_it}:", f"        {call}"]
        return [
            "for name, parameter in self.named_parameters():",
            '    layer, _, tensor = name.rpartition(".")[2].rpartition("_")',
            *lines,
        ]
    bodies: dict[str, list[str]] = {}  # by class
    for rule, classes in zip(rules, words, strict=True):
        tensor, owners = rule.parameters[0].tensor, {each.owner for each in rule.parameters}
        layers = {each.key.rpartition(".")[0] for each in parameters if each.owner in owners}
        body = [f"        {_call(rule, f'layer.{tensor}')}"]
        if len(layers) > len(rule.parameters):
            body = [f"        if layer.{tensor} is not None:", f"    {body[0]}"]
        for each in classes:
            bodies[each] = [*bodies.get(each, []), *body]
    for body in {"\n".join(body): body for body in bodies.values()}.values():
        same = [each for each in bodies if bodies[each] == body]
        shown = f"({', '.join(same)})" if len(same) > 1 else same[0]
        lines += [f"    {'elif' if lines else 'if'} isinstance(layer, {shown}):", *body]
    return ["for layer in self.modules():", *lines]


def changes(key: str, rules: Sequence[Rule], names: FileNames, style: Style) -> list[str]:
    """Return the statements that parametrize or prune parameters."""
    if rules and style == "functional":
        raise ConfigError(
            f"network.{key}: torch changes modules by it, and the functional style holds none; "
            f"type model=nn"
        )
    lines = []
    for rule in rules:
        for each in rule.parameters:
            owner = names.attribute(each.key.rpartition(".")[0])
            given = [
                literal(each.tensor),
                *(f"{k}={literal(v)}" for k, v in rule.arguments.items()),
            ]
            lines.append(f"{MODULES[key]}.{rule.name}({', '.join([owner, *given])})")
    return lines
