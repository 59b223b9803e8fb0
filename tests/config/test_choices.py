"""A choice cannot be half added: its section, what it builds, and its YAML agree."""

import inspect
from typing import get_args

import pytest
import yaml

from convtrain.config.data_sections import BaseData
from convtrain.config.groups import augment, data, loss, model, optimizer, scheduler
from convtrain.config.messages import sections_in
from convtrain.config.section import Choice
from convtrain.config.targets import Target
from convtrain.data.augment import CUTMIX, MIXES_WHOLE, MIXUP, OPERATIONS
from convtrain.data.sampling import TURNS
from convtrain.data.transforms import TRANSFORMS
from convtrain.run.commands import CONFIGS


def choices(group: object) -> tuple[type[Choice], ...]:
    """Return the sections of a group's union that name what they build."""
    found = sections_in(group)
    return tuple(section for section in found if hasattr(section, "builds"))  # type: ignore[misc]


SECTIONS: dict[str, tuple[type[Choice], ...]] = {
    "data": choices(data.Data),
    "loss": choices(loss.Loss),
    "optimizer": choices(optimizer.Optimizer),
    "scheduler": choices(scheduler.Scheduler),
    "augment": (augment.Augment,),
    "model": (model.DeclaredModel, model.TorchvisionModel, model.TimmModel),
}
"""Group to its choices."""
RUNTIME = {
    "augment": {"shape", "store_size", "trust"},
    "optimizer": {"params"},
    "scheduler": {"optimizer", "total_steps", "epoch_steps"},
    "muon": {"fused"},
    "nn": {"network", "init", "parametrize", "prune", "sync_batchnorm", "in_place"},
    "torchvision": {"input_shape", "num_classes"},
    "timm": {"input_shape", "num_classes"},
    "image_folder": {"divides", "read"},
    "csv": {"divides", "read"},
}
"""Arguments that ``build`` is given beside the fields, by group or by choice."""
MAKES_DATASETS = {"custom", "arrays"}
"""Choices of data that make datasets, which one loader reads."""
CALLED_WITH = {"loss": 2}
"""Positional arguments that what is built takes, when it is a function."""
CHOICES = [
    pytest.param(group, section, id=f"{group}-{section.__name__}")
    for group, sections in SECTIONS.items()
    for section in sections
    if not issubclass(section, Target)  # it builds what its user names
]


def names(group: str, section: type[Choice]) -> set[str]:
    """Return the values of the field that tells the choices of a group apart."""
    field = section.model_fields.get("style" if group == "model" else "name")
    return set(get_args(field.annotation)) if field else set()


@pytest.mark.parametrize(("group", "section"), CHOICES)
def test_the_fields_of_a_section_are_the_arguments_of_what_it_builds(
    group: str, section: type[Choice]
) -> None:
    builder = section.model_construct().builder
    parameters = list(inspect.signature(builder).parameters.values())[CALLED_WITH.get(group, 0) :]
    takes = {parameter.name for parameter in parameters}
    own = set(section.model_fields) - {section.selected_by}
    if group == "optimizer":
        own -= optimizer.GROUPING
    if group == "model":
        own -= set(model.ModelChoice.model_fields)
    runtime = set().union(*(RUNTIME.get(key, ()) for key in (group, *names(group, section))))
    if issubclass(section, BaseData):
        own -= set(BaseData.model_fields)
        assert takes - own - runtime <= {"name", *BaseData.model_fields}
    if group == "augment":
        takes = {*takes, *OPERATIONS, *(key for row in OPERATIONS.values() for key in row.options)}
        takes.remove("settings")
    given = own | runtime
    assert given <= takes, f"{section.builds} does not take {given - takes}"
    is_ours = section.builds.startswith("convtrain.") and not issubclass(section, BaseData)
    needed = {p.name for p in parameters if is_ours or p.default is p.empty} & takes
    known = given | (set(BaseData.model_fields) | {"name"} if group == "data" else set())
    assert needed <= known, f"no field gives {section.builds} its {needed - known}"


@pytest.mark.parametrize("group", [group for group in SECTIONS if group != "augment"])
def test_every_choice_has_a_yaml_and_every_yaml_a_choice(group: str) -> None:
    files = [yaml.safe_load(path.read_text()) for path in (CONFIGS / group).glob("[!_]*.yaml")]
    key = "style" if group == "model" else "name"
    declared = {file[key] for file in files if "kind" not in file} - MAKES_DATASETS
    chosen = set().union(*(names(group, section) for section in SECTIONS[group]))
    assert declared == chosen - MAKES_DATASETS


def test_no_choice_is_left_out_here() -> None:
    def below(section: type[Choice]) -> set[type[Choice]]:
        return {section}.union(*map(below, section.__subclasses__()))

    listed = {s for sections in SECTIONS.values() for s in sections if not issubclass(s, Target)}
    assert {section for section in below(Choice) if hasattr(section, "builds")} == listed


def test_no_two_draws_have_the_same_number() -> None:
    numbers = [
        MIXUP,
        CUTMIX,
        MIXES_WHOLE,
        TRANSFORMS,
        TURNS,
        *(n for row in OPERATIONS.values() for n in row.draws.values()),
    ]
    assert len(set(numbers)) == len(numbers)
