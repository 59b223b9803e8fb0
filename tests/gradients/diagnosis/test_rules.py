"""One table of rules: alarms while training and the diagnosis at the end follow it alike."""

import ast
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from safetensors.numpy import load_file

from convtrain.__main__ import main
from convtrain.gradients.diagnosis import rules
from convtrain.gradients.diagnosis.offline import diagnose_tables
from convtrain.gradients.diagnosis.online import Block, Detector
from convtrain.gradients.diagnosis.rules import Rule
from convtrain.gradients.record.store import TABLES
from tests.conftest import REPOSITORY, Train

DIAGNOSIS = REPOSITORY / "convtrain" / "gradients" / "diagnosis"
NAMES = ("conv1.weight", "conv1.bias", "conv2.weight", "fc.weight", "fc.bias")
NORMS = np.array([0.5, 0.1, 0.5, 1.0, 0.2])
STEPS = 200
RULES = tuple(value for value in vars(rules).values() if isinstance(value, Rule))
PAGE = (REPOSITORY / "docs" / "gradients.md").read_text()
APPLIED = dict(re.findall(r"^\| `(\w+)` \| (online|offline|both) \|", PAGE, re.MULTILINE))
Record = tuple[np.ndarray, dict[str, Any]]


def healthy() -> Record:
    noise = np.random.default_rng(0).normal(0, 0.2, (STEPS, 1))
    return NORMS * np.exp(noise), {}


def scaled(names: Sequence[str], factor: float) -> Record:
    norms, columns = healthy()
    norms[:, [NAMES.index(name) for name in names]] *= factor
    return norms, columns


def exploding() -> Record:
    norms, columns = healthy()
    norms[170] *= 300
    return norms, columns


def growing() -> Record:
    norms, columns = healthy()
    return norms * np.geomspace(1, 40, STEPS)[:, None], columns


def nonfinite() -> Record:
    norms, _ = healthy()
    norms[150, 2] = np.nan
    at = np.arange(STEPS) == 150
    return norms, {"nonfinite": at.astype(int), "first_nonfinite": np.where(at, NAMES[2], None)}


def with_columns(**columns: Any) -> Record:
    return healthy()[0], columns


RECORDS = {
    "nonfinite": nonfinite(),
    "loss": with_columns(loss=np.where(np.arange(STEPS) == 150, np.inf, 1.0)),
    "exploding": exploding(),
    "no_gradient": scaled(NAMES, 0),
    "dead": scaled(["conv2.weight"], 0),
    "vanishing": scaled(["conv1.weight", "conv1.bias"], 1e-4),
    "exploding_backwards": scaled(["conv1.weight", "conv1.bias"], 1e4),
    "negligible": scaled(["conv1.bias"], 1e-9),
    "still": with_columns(fingerprints=np.array([1.0, 2, 3, 4, 5])),
    "skipped": with_columns(skipped=np.arange(STEPS) % 3 == 0),
    "growing": growing(),
    "clipped": with_columns(clip_coefficient=np.full(STEPS, 0.25)),
    "slow": with_columns(update_ratio=1e-7),
    "hasty": with_columns(update_ratio=0.3),
}
"""For each rule a record in which this rule holds, and no other."""


def online(norms: np.ndarray, columns: dict[str, Any]) -> set[str]:
    """Return the kinds of the alarms, with a flush every 20 steps."""
    steps: dict[str, np.ndarray] = {
        "step": np.arange(1, STEPS + 1),
        "norm": np.sqrt((norms**2).sum(1)),
        "skipped": np.zeros(STEPS, bool),
        "nonfinite": np.zeros(STEPS, int),
        "first_nonfinite": np.full(STEPS, None),
        "loss": np.ones(STEPS),
        "loss_known": np.ones(STEPS, bool),
        **columns,
    }
    detector, kinds = Detector(), set()
    for start in range(0, STEPS, 20):
        rows = slice(start, start + 20)
        given = {name: steps[name][rows] for name in steps if np.shape(steps[name]) == (STEPS,)}
        block = Block(NAMES, given, norms[rows], np.ones((20, len(NAMES)), bool))
        marks = columns.get("fingerprints", np.full(len(NAMES), float(start)))
        kinds |= {alarm.kind for alarm in detector.look(replace(block, fingerprints=marks))}
    return kinds


def offline(norms: np.ndarray, columns: dict[str, Any]) -> set[str]:
    """Return the titles of the lines that report trouble."""
    steps = {"step": np.arange(1, STEPS + 1), "norm": np.sqrt((norms**2).sum(1))}
    steps |= {name: values for name, values in columns.items() if name in TABLES["steps"]}
    parameters = {
        "step": np.repeat(steps["step"], len(NAMES)),
        "parameter": list(NAMES) * STEPS,
        "norm": norms.ravel(),
        "update_ratio": np.full(norms.size, columns.get("update_ratio", 1e-3)),
    }
    tables = [
        pa.table(
            {
                name: pa.array(values, TABLES[table].get(name, pa.float32()))
                for name, values in columns.items()
            }
        )
        for table, columns in (("steps", steps), ("parameters", parameters))
    ]
    lines = diagnose_tables(*tables)
    titles = {rule.title for rule in RULES}
    found = {title for title in titles for line in lines if re.match(f"{title}(:| in )", line)}
    assert lines[0].startswith("Healthy: ") == (not found)
    return found


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_alarms_and_diagnosis_agree_on_each_rule(rule: Rule) -> None:
    applied = APPLIED[rule.name]
    expected = {rule.name} if applied in ("online", "both") else set()
    assert online(*RECORDS[rule.name]) == expected
    expected = {rule.title} if applied in ("offline", "both") else set()
    assert offline(*RECORDS[rule.name]) == expected


def test_a_healthy_record_breaks_no_rule() -> None:
    assert online(*healthy()) == offline(*healthy()) == set()


def test_every_rule_is_a_row_of_the_documentation() -> None:
    assert [rule.name for rule in RULES] == list(RECORDS) == list(APPLIED)


@pytest.mark.parametrize("name", ["online", "offline", "baseline"])
def test_no_threshold_stands_outside_the_table(name: str) -> None:
    tree = ast.parse((DIAGNOSIS / f"{name}.py").read_text())
    numbers = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and type(node.value) in (int, float)
    }
    no_thresholds = {"baseline": {1.4826}, "offline": {1e-4}}  # mathematics; rounding of float32
    assert numbers - no_thresholds.get(name, set()) <= {0, 1, 2}


# --- one number for a layer -----------------------------------------------------------------------


def test_gradients_diff_and_result_give_one_number_for_each_layer(
    train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Compared with the medians of norms that numpy computes from the stored gradients."""
    always = ("recorder.tensors.every_n_steps=1", "recorder.max_overhead=1")
    result = train("data.limit=400", "recorder=debug", *always)
    run = tmp_path / "run"
    by_step: list[dict[str, float]] = []
    for path in sorted((run / "gradients" / "tensors").glob("*.safetensors")):
        squares: dict[str, float] = {}
        for name, gradient in load_file(path).items():
            if name != "input":
                layer = name.rpartition(".")[0]
                square = float(np.square(gradient.astype(np.float64)).sum())
                squares[layer] = squares.get(layer, 0.0) + square
        by_step.append({layer: square**0.5 for layer, square in squares.items()})
    assert len(by_step) == result["steps"] > 3
    medians = {layer: np.median([norms[layer] for norms in by_step]) for layer in by_step[0]}

    capsys.readouterr()
    assert main(["gradients", str(run), "--layers"]) == 0
    printed = capsys.readouterr().out
    table = [line.split() for line in printed.split("\n\n")[1].splitlines()]
    column = table[0].index("median")
    assert main(["diff", str(run), str(run)]) == 0
    compared = capsys.readouterr().out.partition("median gradient norm")[2]
    for layer, median in medians.items():
        (in_gradients,) = [float(cells[column]) for cells in table[2:] if cells[0] == layer]
        (in_diff,) = [float(m[1]) for m in re.finditer(rf"^{layer} +(\S+)", compared, re.MULTILINE)]
        assert in_gradients == in_diff == pytest.approx(median, rel=0.05)  # two digits

    ratio = medians["conv2d_1"] / medians["linear_1"]
    (line,) = [line for line in result["gradients"] if line.startswith("Gradient norm ")]
    assert f"to {ratio:.2g}x from linear_1 (last) to conv2d_1 (first)" in line
    assert result["gradients"] == printed.splitlines()[1 : 1 + len(result["gradients"])]
