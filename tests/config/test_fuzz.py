"""Mutated configurations: each is refused in one line for each mistake, or is what it says it is.

The generator is seeded; what is allowed is decided by the hand-written table in ``ranges.py``.
"""

import copy
import math
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from convtrain.command.command_line import CommandLine
from convtrain.command.compose import compose_command
from convtrain.command.job_config import resolve_config
from convtrain.errors import ConfigError
from tests.config.ranges import ROWS, Allows
from tests.conftest import slow_but

Plain = dict[str, Any]
Base = tuple[Plain, dict[str, Allows]]


def nested(depth: int, kind: type) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value} if kind is dict else [value]
    return value


VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 64, 4097, 65_536, 2**31 - 1, 2**31, 2**63 - 1, 2**63,
    10**30, -(10**30), 10**400, 0.0, -0.0, 0.5, 1.0, 1.5, -0.1, 1e-320, 1e308, -1e308,
    math.nan, math.inf, -math.inf, "", " ", "abc", "1", "1e5", "0x10", "true", "null", "auto",
    "none", "min", "sgd", "val/acc", "../../etc/passwd", "/etc/passwd", "a/b", "..", ".", "-rf",
    "a\nb", "a\rb: c", "\x00", "\x1b[31m", "🦆", "é" * 5000, "x" * 101, "${nope}", "${data}",
    "${seed}", "${trainer}", "${oc.env:NO_SUCH_VARIABLE}", "${oc.decode:'[1'}", "${", "${}", "???",
    "${oc.create:{a:1}}", "$(id)", "`id`", "!!python/object/apply:os.system [id]", [], [1],
    [0.5, 0.5], [1, 8, 8], [1, -1, 8], ["a"], ["a", "a"], ["../x"], [None], [[1]], {}, {"a": 1},
    {1: 2}, {"_target_": "os.system"}, [{"_target_": "os.system", "_partial_": True}],
    nested(30, dict), nested(60, dict), nested(60, list), b"bytes",
]  # fmt: skip

MAY_BE_LEFT_OUT = {
    "network.blocks", "network.parametrize", "network.prune", "data.background", "data.value_range",
    "data.allow_change",
}  # fmt: skip
AGREE = {
    "data.shape", "data.mean", "data.std", "data.classes", "data.num_classes", "data.batch_size",
    "data.train_size", "data.test_size", "data.memory_gib", "data.limit", "data.root", "data.fill",
    "data.overfit_batches", "data.val_fraction", "data.test_fraction", "data.name",
    "data.drop_last", "data.eval_batch_size", "data.value_range", "model.style",
    "model._target_", "loss._target_", "callbacks.custom", "trust", "resume", "loss.alpha",
    "loss.form",
    "augment.random_crop", "augment.cutout", "optimizer.nesterov", "optimizer.momentum",
    "trainer.compile", "trainer.accumulate_grad_batches",
    "trainer.devices", "trainer.num_nodes", "trainer.val_check_interval",
    "trainer.limit_train_batches", "trainer.limit_val_batches", "trainer.limit_test_batches",
    "callbacks.early_stopping.patience", "network.init", "network.blocks", "network.prune",
    "network.parametrize", "network.layers", "loss.name", "optimizer.name", "scheduler.name",
}  # fmt: skip
"""Keys of which a value that is allowed by itself may not fit the others, or the disk."""

ELSEWHERE = {"data.name", "loss.name", "optimizer.name", "scheduler.name", "model.style"}
"""Keys whose mistake shows at others: what another choice does not know."""


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> list[Base]:
    folder = tmp_path_factory.mktemp("images")
    for name in ("cat", "dog"):
        (folder / name).mkdir()
        (folder / name / "1.png").touch()
    found = []
    for overrides, allowed in ROWS:
        typed = ["network=conv2d", *(text.replace("FOLDER", str(folder)) for text in overrides)]
        (composed,) = compose_command(CommandLine(overrides=typed))
        plain = OmegaConf.to_container(composed.config)
        assert isinstance(plain, dict)
        found.append(({str(key): value for key, value in plain.items()}, allowed))
    return found


def mutants(
    bases: list[Base], count: int, seed: int
) -> Iterator[tuple[Plain, str, str, Any, Allows]]:
    """Yield base, what is done, key, value, and the oracle of the key."""
    draw = random.Random(seed)
    for _ in range(count):
        base, allowed = draw.choice(bases)
        key = draw.choice(sorted(allowed))
        what = draw.choices(["set", "nudge", "remove", "add"], [10, 4, 1, 1])[0]
        value = draw.choice(VALUES)
        if what == "nudge":
            what, value = "set", nudged(value_of(base, key), draw)
        yield base, what, key, value, allowed[key]


def nudged(value: Any, draw: random.Random) -> Any:
    """Return something near a value: what a slip of the fingers makes of it."""
    if isinstance(value, bool):
        return not value
    if isinstance(value, int | float):
        return draw.choice([value + 1, value * 2, -value, value / 2, float(value), str(value)])
    if isinstance(value, str):
        return draw.choice([value + "x", value.upper(), value[:-1], [value], {value: value}])
    if isinstance(value, list):
        return draw.choice([value[1:], [*value, *value[:1]], value[:1], dict.fromkeys("ab")])
    return draw.choice([0, 1, "1", "x"])


def value_of(plain: Any, key: str) -> Any:
    for part in key.split("."):
        plain = plain.get(part) if isinstance(plain, dict) else None
    return plain


def change(plain: Plain, what: str, key: str, value: Any) -> tuple[Plain, str]:
    """Return a changed copy, and the key that is changed."""
    changed = copy.deepcopy(plain)
    *path, leaf = key.split(".")
    node = changed
    for part in path:
        node = node[part]
    if what == "remove":
        node.pop(leaf, None)
    elif what == "add":
        leaf = f"{leaf}_unheard_of"
        node[leaf] = value
    else:
        node[leaf] = value
    return changed, ".".join((*path, leaf))


def resolved(value: Any, plain: Plain) -> Any:
    """Return what a value stands for."""
    if value == "${oc.create:{a:1}}":
        return {"a": 1}
    if not isinstance(value, str) or value not in ("${seed}", "${data}", "${trainer}"):
        return value
    return copy.deepcopy(plain[value[2:-1]])


@pytest.mark.parametrize("seed", slow_but(range(4), 0, 1))
def test_a_mutated_configuration_is_refused_in_lines_or_is_what_it_says(
    bases: list[Base], seed: int
) -> None:
    outcomes = Counter[str]()
    complaints = []
    for base, what, key, value, allows in mutants(bases, 130, seed):
        changed, touched = change(base, what, key, value)
        try:
            container = OmegaConf.create(changed)
        except OmegaConfBaseException:
            outcomes["no configuration at all"] += 1
            continue
        fine = is_fine(base, what, key, value, allows)
        try:
            config = resolve_config(container)
        except ConfigError as error:
            outcomes["refused"] += 1
            wrong = complaint_of_refusal(error, touched, fine)
        else:
            outcomes["accepted"] += 1
            wrong = "" if fine else "accepted"
            if what == "set" and not wrong:
                found = value_of(config.model_dump(by_alias=True), touched)
                wrong = "" if same(found, resolved(value, base)) else f"became {found!r}"
        if wrong:
            complaints.append(f"{what} {touched}={value!r:.80}: {wrong}")
    assert not complaints, "\n".join(complaints)
    assert outcomes["refused"] > 60
    assert outcomes["accepted"] > 5


def is_fine(base: Plain, what: str, key: str, value: Any, allows: Allows) -> bool:
    counted = base["data"]["name"] == "image_folder" and key in ("data.classes", "data.num_classes")
    if what == "add":  # whatever stands beside the path of a custom model is its argument
        own = [group for group in ("model", "loss") if "_target_" in base[group]]
        return key.partition(".")[0] in own and value != "???"
    if what == "remove" or value == "???":
        return counted or (what == "remove" and key in MAY_BE_LEFT_OUT)
    return allows(resolved(value, base))


def same(found: Any, given: Any) -> bool:
    """Tell whether a value came through: numbers as floats, keys as text, folders counted."""
    if isinstance(given, dict):
        given = {str(key): value for key, value in given.items()}
    return given in (None, "???") or found == (float(given) if isinstance(found, float) else given)


def complaint_of_refusal(error: ConfigError, touched: str, fine: bool) -> str:
    if fine and touched not in AGREE and not touched.endswith("_unheard_of"):
        return f"refused: {error}"
    if not any(touched in line for line in error.lines) and touched not in ELSEWHERE:
        return f"not named: {error}"
    for line in error.lines:
        if len(line.splitlines()) != 1 or not line.isprintable() or len(line) > 1000:
            return f"shown as {line!r}"
    return ""
