"""The record on disk: nothing is lost but what was not written, and each step is there once."""

import json
import signal
import subprocess
import time
import warnings
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from convtrain.errors import MissingDataError
from convtrain.gradients import load
from convtrain.gradients.record.statistics import NAMES as NAMES_OF_STATISTICS
from convtrain.gradients.record.store import TABLES, Store, parts_of

PREFIXED = [f"{what}_{name}" for what in ("value", "gradient") for name in NAMES_OF_STATISTICS]
NAMES = ("conv.weight", "conv.bias", "head.weight")


def write(store: Store, first: int, last: int, names: Sequence[str] = NAMES) -> None:
    """Append the steps of one part; the norm of parameter ``i`` in step ``s`` is ``s + i / 8``."""
    rows = [(s, i) for s in range(first, last + 1) for i in range(len(names))]
    store.append(
        "parameters",
        {
            "step": [s for s, _ in rows],
            "parameter": [names[i] for _, i in rows],
            "norm": [s + i / 8 for s, i in rows],
        },
    )


def rows_of(first: int, last: int) -> list[tuple[int, str, float]]:
    return [(s, n, s + i / 8) for s in range(first, last + 1) for i, n in enumerate(NAMES)]


def loaded(run: Path) -> list[tuple[int, str, float]]:
    table = load(run)
    return list(zip(*(table[c].to_pylist() for c in ("step", "parameter", "norm")), strict=True))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Three parts: steps 1 to 4, 5 to 8 and 9 to 12."""
    store = Store(tmp_path)
    for first in (1, 5, 9):
        write(store, first, first + 3)
    return store


def test_what_is_written_is_read(store: Store, tmp_path: Path) -> None:
    assert loaded(tmp_path) == rows_of(1, 12)
    files = parts_of(tmp_path / "gradients" / "parameters")
    assert [f.stem for f in files] == [f"{a:012d}-{a + 3:012d}" for a in (1, 5, 9)]
    assert store.bytes_written == sum(f.stat().st_size for f in files)


def test_nothing_is_no_part(tmp_path: Path) -> None:
    Store(tmp_path).append("parameters", {"step": [], "parameter": [], "norm": []})
    with pytest.raises(MissingDataError, match="no gradient record with a table of parameters"):
        load(tmp_path)


@pytest.mark.parametrize("table", list(TABLES))
def test_every_table_keeps_every_column(tmp_path: Path, table: str) -> None:
    examples = {
        pa.int64(): 7,
        pa.int32(): 3,
        pa.float64(): 0.1,
        pa.float32(): 0.25,
        pa.bool_(): True,
        pa.string(): "conv.weight",
    }

    def example(kind: pa.DataType) -> object:
        if pa.types.is_dictionary(kind):
            return examples[kind.value_type]
        return [examples[kind.value_type]] * 2 if pa.types.is_list(kind) else examples[kind]

    statistics = {"parameters": NAMES_OF_STATISTICS, "layers": PREFIXED}.get(table, ())
    types = {**TABLES[table], **dict.fromkeys(statistics, pa.float32())}
    row = {name: example(kind) for name, kind in types.items()}
    store = Store(tmp_path)
    store.append(table, {name: [value] for name, value in row.items()})
    store.append(table, {name: [8 if name == "step" else None] for name in row})
    assert load(tmp_path, table).to_pylist() == [row, {**dict.fromkeys(row), "step": 8}]


def test_a_column_that_appears_later_is_absent_before(store: Store, tmp_path: Path) -> None:
    store.append(
        "parameters",
        {"step": [13], "parameter": ["thawed.weight"], "norm": [1.0], "cosine": [0.5]},
    )
    table = load(tmp_path)
    assert table["cosine"].to_pylist() == [None] * 36 + [0.5]
    assert table["parameter"].to_pylist()[-1] == "thawed.weight"


def test_statistics_of_records_of_before_have_their_present_names(tmp_path: Path) -> None:
    """Also where a run of before is resumed, and writes parts with the present names."""
    store = Store(tmp_path)
    keys = {"step": [1, 2], "parameter": ["conv.weight"] * 2}
    store.append(
        "parameters", {**keys, "norm": [1.0] * 2, "deviation": [2.0] * 2, "zeros": [3.0] * 2}
    )
    store.append(
        "layers",
        {"step": [1], "layer": ["conv"], "value_zeros": [4.0], "gradient_deviation": [5.0]},
    )
    store.keep_until(1)
    store.append("parameters", {"step": [2], "parameter": ["conv.weight"], "std": [6.0]})
    (first, second), (layer,) = load(tmp_path).to_pylist(), load(tmp_path, "layers").to_pylist()
    assert (first["norm"], first["std"], first["zero_fraction"], second["std"]) == (1, 2, 3, 6)
    assert (layer["value_zero_fraction"], layer["gradient_std"]) == (4, 5)
    assert not {"deviation", "zeros"} & {*first}


# --- resuming -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", range(14))
def test_a_resumed_run_has_each_step_once(store: Store, tmp_path: Path, kept: int) -> None:
    store.keep_until(kept)
    if kept:
        assert loaded(tmp_path) == rows_of(1, min(kept, 12))
    write(store, kept + 1, 15)
    assert loaded(tmp_path) == rows_of(1, min(kept, 12)) + rows_of(kept + 1, 15)


def test_a_kill_while_forgetting_repeats_no_step(store: Store, tmp_path: Path) -> None:
    old = parts_of(tmp_path / "gradients" / "parameters")[1]
    content = old.read_bytes()
    store.keep_until(6)
    old.write_bytes(content)
    assert loaded(tmp_path) == rows_of(1, 8)
    store.keep_until(6)
    assert loaded(tmp_path) == rows_of(1, 6)


def test_a_part_that_cannot_be_read_does_not_hinder_resuming(store: Store, tmp_path: Path) -> None:
    part = parts_of(tmp_path / "gradients" / "parameters")[1]
    part.write_bytes(b"PAR1")
    with pytest.warns(UserWarning, match=part.name):
        store.keep_until(6)
    assert loaded(tmp_path) == rows_of(1, 4)


# --- damage ---------------------------------------------------------------------------------------


def foreign(part: Path) -> None:
    pq.write_table(pa.table({"stair": [1, 2]}), part)


def other_steps(part: Path) -> None:
    table = pq.read_table(part)
    pq.write_table(table.slice(len(NAMES)), part)


def flip(part: Path) -> None:
    """Change one bit of the norms, which still decode as numbers."""
    content = bytearray(part.read_bytes())
    column = pq.ParquetFile(part).metadata.row_group(0).column(2)
    content[column.data_page_offset + column.total_compressed_size - 9] ^= 4
    part.write_bytes(content)


@pytest.mark.parametrize("place", [0, 1, 2], ids=["first", "middle", "last"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda part: part.write_bytes(part.read_bytes()[:-9]),
        lambda part: part.write_bytes(part.read_bytes()[:99]),
        lambda part: part.write_bytes(b""),
        lambda part: part.write_bytes(b"\xb5" * 999),
        flip,
        foreign,
        other_steps,
    ],
    ids=["end cut off", "cut short", "emptied", "garbage", "a bit flipped", "foreign", "row lost"],
)
def test_a_damaged_part_hides_no_other(
    store: Store, tmp_path: Path, damage: object, place: int
) -> None:
    part = parts_of(tmp_path / "gradients" / "parameters")[place]
    damage(part)  # type: ignore[operator]
    with pytest.warns(UserWarning, match="left out") as told:
        found = loaded(tmp_path)
    first = 4 * place
    assert found == [row for row in rows_of(1, 12) if not first < row[0] <= first + 4]
    (warning,) = told
    assert str(part) in str(warning.message)
    assert "\n" not in str(warning.message)


def test_no_flipped_bit_makes_a_wrong_number(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write(store, 1, 4)
    write(store, 5, 8)
    part = parts_of(tmp_path / "gradients" / "parameters")[0]
    content = part.read_bytes()
    for place in range(0, 8 * len(content), 61):
        flipped = bytearray(content)
        flipped[place // 8] ^= 1 << place % 8
        part.write_bytes(flipped)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            found = loaded(tmp_path)
        assert found[-12:] == rows_of(5, 8)
        if not told:  # the file's own index has no checksum: a column may have lost its name
            right = rows_of(1, 8)
            assert found == right or found[:12] == [(s, n, None) for s, n, _ in right[:12]]


def test_other_files_are_no_parts(store: Store, tmp_path: Path) -> None:
    part = parts_of(tmp_path / "gradients" / "parameters")[0]
    for name in (f".{part.name}.tmp", f"{part.stem} (1).parquet", "1-2-3.parquet", "notes.txt"):
        part.with_name(name).write_bytes(b"half a file")
    copy = tmp_path / "gradients" / "tensors" / "000000000009 (1).safetensors"
    copy.parent.mkdir()
    copy.write_bytes(b"a copy")
    assert loaded(tmp_path) == rows_of(1, 12)
    store.keep_until(6)
    assert loaded(tmp_path) == rows_of(1, 6)


WRITER = """
import sys
from tests.gradients.record.test_store import Store, write
store = Store(sys.argv[1])
try:
    from convtrain.gradients import load
    first = load(sys.argv[1])["step"][-1].as_py() + 1
except Exception:
    first = 1
store.keep_until(first - 1)
print("writing", flush=True)
while True:
    write(store, first, first + 2)
    first += 3
"""


def test_a_killed_writer_leaves_a_record_that_opens(tmp_path: Path, python: str) -> None:
    until = time.monotonic() + 1.2
    rounds, steps, folder = 0, 0, tmp_path / "gradients" / "parameters"
    while time.monotonic() < until or rounds < 2:
        files = set(folder.glob("[!.]*"))
        writer = subprocess.Popen(
            [python, "-c", WRITER, str(tmp_path)], stdout=subprocess.PIPE, text=True
        )
        assert writer.stdout is not None
        with writer.stdout as output:
            assert output.readline() == "writing\n"
        while writer.poll() is None and not set(folder.glob("[!.]*")) - files:
            time.sleep(0.002)
        time.sleep(0.013 * rounds)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        found = loaded(tmp_path)
        steps, before = len(found) // len(NAMES), steps
        assert steps > before
        assert found == rows_of(1, steps)
        rounds += 1


# --- other tools ----------------------------------------------------------------------------------


def test_parquet_readers_open_the_folder(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "gradients" / "parameters"
    (folder / ".000000000013-000000000016.parquet.tmp").write_bytes(b"half a file")
    table = pq.read_table(folder)
    assert table["step"].to_pylist() == [row[0] for row in rows_of(1, 12)]
    assert table["parameter"].to_pylist() == [row[1] for row in rows_of(1, 12)]


def test_a_folder_may_be_called_like_an_override(tmp_path: Path) -> None:
    write(Store(tmp_path / "step=3,lr=0.1"), 1, 4)
    assert loaded(tmp_path / "step=3,lr=0.1") == rows_of(1, 4)


def test_a_norm_takes_few_bytes(tmp_path: Path) -> None:
    names = [f"layer_{i}.weight" for i in range(6)]
    store = Store(tmp_path)
    for first in range(1, 501, 50):
        write(store, first, first + 49, names)
    assert store.bytes_written / (500 * len(names)) <= 64


@pytest.mark.parametrize("table", ["steps", "stepz"])
def test_a_table_that_is_not_there(store: Store, tmp_path: Path, table: str) -> None:
    with pytest.raises(MissingDataError, match=table):
        load(tmp_path, table)


def test_a_resume_forgets_alarms_and_graphs_of_the_steps_that_it_undoes(tmp_path: Path) -> None:
    """And the rest of a line that a kill has cut."""
    store = Store(tmp_path)
    for step in (5, 20):
        store.write_text(f"graph-{step:012d}.json", json.dumps({"conv": [f"after {step}"]}))
    told = [json.dumps({"kind": "dead", "step": step}) + "\n" for step in (3, 10, 11, 30)]
    store.write_text("alarms.jsonl", "".join(told) + '{"kind": "de')
    assert store.last_graph() == {"conv": ["after 20"]}
    store.keep_until(10)
    assert (tmp_path / "gradients" / "alarms.jsonl").read_text() == "".join(told[:2])
    assert store.last_graph() == {"conv": ["after 5"]}
    store.keep_until(0)
    assert (tmp_path / "gradients" / "alarms.jsonl").read_text() == ""
    assert store.last_graph() == {}
