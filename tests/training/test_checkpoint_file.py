"""A checkpoint as a file: what may be in it, what damages it, and what a kill leaves of it."""

import ast
import errno
import functools
import hashlib
import http.server
import os
import random
import resource
import signal
import threading
import time
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from torch import nn

from convtrain.errors import ConfigError, CorruptDataError, MissingDataError, TrainingError
from convtrain.process.atomic import remove_stale_temporaries
from convtrain.training.checkpoint_file import load_checkpoint, newest_good, save_checkpoint
from tests.conftest import REPOSITORY
from tests.training.forged import Payload, forge

PLAIN: dict[Any, Any] = {
    "state_dict": OrderedDict(weight=torch.arange(6.0).view(2, 3), half=torch.ones(2).bfloat16()),
    "numbers": [1, 2.5, True, None, 1 + 2j, float("inf")],
    "texts": ("text", b"bytes", {"a", "b"}),
    "kinds": [torch.float16, torch.device("cpu"), torch.Size([2, 3])],
    7: {"nested": [{"deep": torch.tensor(1)}]},
}


def one_line(error: Exception, path: Path | str) -> bool:
    return str(path) in str(error) and len(str(error).splitlines()) == 1


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- what is in the file --------------------------------------------------------------------------


def test_torch_alone_reads_what_was_saved(tmp_path: Path) -> None:
    path = tmp_path / "new folder" / "a.ckpt"
    save_checkpoint(PLAIN, path)
    for loaded in (
        torch.load(path, weights_only=True),
        torch.load(path, weights_only=True, mmap=True),
        load_checkpoint(path),
    ):
        found: dict[Any, Any] = loaded
        assert list(found) == list(PLAIN)
        torch.testing.assert_close(loaded["state_dict"], PLAIN["state_dict"], rtol=0, atol=0)
        for key in ("numbers", "texts", "kinds", 7):
            assert found[key] == PLAIN[key]
    assert names(path.parent) == ["a.ckpt"]


def test_the_checksum_is_the_sha256_of_all_bytes_before_it(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint(PLAIN, path)
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        comment = archive.comment
    content = path.read_bytes().removesuffix(comment)
    assert comment == f"convtrain sha256 {hashlib.sha256(content).hexdigest()}".encode()


def test_tensors_that_share_memory_still_do(tmp_path: Path) -> None:
    shared = torch.zeros(1000)
    save_checkpoint({"a": shared, "b": shared.view(10, 100)}, tmp_path / "a.ckpt")
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    loaded["a"].fill_(1)
    assert loaded["b"].sum() == 1000


FOREIGN: dict[str, tuple[Any, str]] = {
    "path": ({"callbacks": {"Mine": {"where": Path("x")}}}, r"callbacks\.Mine\.where is a pathlib"),
    "omegaconf": ({"hparams": OmegaConf.create({"a": 1})}, r"hparams is a omegaconf"),
    "numpy number": ({"best": [0, np.float64(1)]}, r"best\.1 is a numpy\.float64"),
    "class": ({"hparams_type": dict}, r"hparams_type is a builtins\.type"),
    "key": ({Path("x"): 1}, r"the key x is a pathlib"),
    "module": ({"state_dict": {"model": nn.Linear(1, 1)}}, r"state_dict\.model is a torch\.nn"),
    "function": ({"lambda": print}, r"lambda is a builtins\.builtin_function"),
}


@pytest.mark.parametrize(("content", "says"), FOREIGN.values(), ids=FOREIGN.keys())
def test_what_is_no_plain_container_is_named_and_not_written(
    content: dict[str, Any], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "a.ckpt"
    save_checkpoint({"good": 1}, path)
    with pytest.raises(TrainingError, match=says) as raised:
        save_checkpoint(content, path)
    assert one_line(raised.value, path)
    assert load_checkpoint(path) == {"good": 1}


def test_an_attribute_of_a_tensor_or_a_state_dict_is_looked_at_too(tmp_path: Path) -> None:
    holders: list[Any] = [torch.ones(1), OrderedDict(a=1)]
    for holder in holders:
        holder.where = Path("x")
        with pytest.raises(TrainingError, match=r"w\.where is a pathlib"):
            save_checkpoint({"w": holder}, tmp_path / "a.ckpt")
    model = nn.BatchNorm1d(3)
    save_checkpoint({"state_dict": model.state_dict()}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt")["state_dict"]._metadata[""]["version"] == 2


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "a.ckpt"
    save_checkpoint({"state_dict": {"w": torch.randn(50_000)}}, path)
    return path


def assert_detected(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    with pytest.raises(CorruptDataError) as raised:
        load_checkpoint(path)
    assert one_line(raised.value, path)


def test_a_flipped_bit_is_found_wherever_it_is(saved: Path) -> None:
    content = saved.read_bytes()
    drawn = random.Random(1)
    end = len(content) * 8
    anywhere = [drawn.randrange(end) for _ in range(50)]
    checksum_and_before = range(end - 8 * 110, end, 7)
    for bit in (*anywhere, *checksum_and_before):
        flipped = bytearray(content)
        flipped[bit // 8] ^= 1 << bit % 8
        assert_detected(saved, bytes(flipped))


def test_what_is_cut_off_empty_or_longer_is_found(saved: Path) -> None:
    content = saved.read_bytes()
    for size in (0, 1, 80, 81, 82, 1000, len(content) // 2, len(content) - 1):
        assert_detected(saved, content[:size])
    assert_detected(saved, content[1:])
    assert_detected(saved, content + b"\0")
    assert_detected(saved, bytes(len(content)))


def test_what_torch_wrote_without_a_checksum_is_no_checkpoint_of_ours(tmp_path: Path) -> None:
    torch.save({"a": 1}, tmp_path / "a.ckpt")
    with pytest.raises(CorruptDataError, match="no checksum"):
        load_checkpoint(tmp_path / "a.ckpt")


SGD = {"param_groups": [{"momentum": 0.9}], "state": {0: {"momentum_buffer": torch.ones(2)}}}
WHOLE: dict[str, Any] = {
    "state_dict": {}, "optimizer_states": [SGD], "lr_schedulers": [], "loops": {}, "callbacks": {},
    "global_step": 3, "epoch": 0, "run_id": "mine",
}  # fmt: skip


def without_state(**group: Any) -> dict[str, Any]:
    return {"optimizer_states": [{"param_groups": [{"lr": 0.1, **group}], "state": {}}]}


UNFIT: dict[str, tuple[dict[str, Any], str]] = {
    "another run": ({"run_id": "other"}, "is a checkpoint of another run"),
    "momentum": (without_state(momentum=0.9), "incomplete, the optimiser's state is empty"),
    "adam": (without_state(betas=(0.9, 0.99)), "incomplete, the optimiser's state is empty"),
    "rmsprop": (
        without_state(momentum=0, alpha=0.9), "incomplete, the optimiser's state is empty",
    ),
    "no optimiser": ({"optimizer_states": []}, "incomplete, the optimiser's state is empty"),
    "no keys": ({"optimizer_states": [{}]}, "incomplete, the optimiser's state is empty"),
    **{name: ({name: None}, f"incomplete, it lacks {name}") for name in WHOLE if name != "run_id"},
}  # fmt: skip


@pytest.mark.parametrize("name", UNFIT)
def test_a_checkpoint_that_would_resume_to_another_training_is_passed_over(
    name: str, tmp_path: Path
) -> None:
    changes, expected = UNFIT[name]
    content = {**WHOLE, **changes}
    if expected.startswith("incomplete, it lacks"):
        del content[name]
    save_checkpoint(content, tmp_path / "last.ckpt")
    with pytest.raises(CorruptDataError, match=f"last.ckpt: {expected}"):
        newest_good(tmp_path, "mine")
    save_checkpoint(WHOLE, tmp_path / "step000002.ckpt")
    found = newest_good(tmp_path, "mine")
    assert found.path.name == "step000002.ckpt"
    assert found.damaged == [f"{tmp_path}/last.ckpt: {expected}"]


@pytest.mark.parametrize(
    "changes",
    [
        without_state(momentum=0),
        {**without_state(momentum=0.9), "global_step": 0},
        {"run_id": None},
    ],
    ids=["plain SGD keeps none", "before the first step", "of an older version"],
)
def test_a_checkpoint_that_needs_no_more_is_resumed_from(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    save_checkpoint({**WHOLE, **changes}, tmp_path / "last.ckpt")
    assert newest_good(tmp_path, "mine").path.name == "last.ckpt"


def test_the_newest_good_one_is_found_by_the_steps_in_the_names(tmp_path: Path) -> None:
    order = ("last", "step000030", "best-epoch001-step000030", "step000020", "best-epoch000-step9")
    for name in reversed(order):
        save_checkpoint(WHOLE, tmp_path / f"{name}.ckpt")
        os.utime(tmp_path / f"{name}.ckpt", (0, random.Random(name).random() * 1e9))
    for count, name in enumerate(order):
        path, _, damaged = newest_good(tmp_path)
        assert path.stem == name
        assert len(damaged) == count
        assert all(
            f"{bad}.ckpt: damaged" in line for bad, line in zip(order, damaged, strict=False)
        )
        path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptDataError, match=r"no checkpoint.*last\.ckpt.*step9\.ckpt") as raised:
        newest_good(tmp_path)
    assert one_line(raised.value, tmp_path)


# --- payloads -------------------------------------------------------------------------------------


def test_a_payload_is_refused_and_nothing_is_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "executed"
    path = forge({"state_dict": {}, "extra": Payload(mark)}, tmp_path / "a.ckpt")
    torch.load(path, weights_only=False)
    assert mark.exists(), "the payload works where it is allowed to"
    mark.unlink()
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.raises(CorruptDataError, match=r"refused, it holds _?io\.open") as raised:
        load_checkpoint(path)
    assert one_line(raised.value, path)
    assert not mark.exists()


@pytest.fixture
def served(tmp_path: Path) -> Iterator[str]:
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(tmp_path))
    handler.log_message = lambda *args: None  # type: ignore[attr-defined]
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.mark.parametrize("protocol", ["http", "memory", "file"])
def test_a_remote_file_is_trusted_no_more_than_a_local_one(
    protocol: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    mark = tmp_path / "executed"
    forge({"extra": Payload(mark)}, tmp_path / "payload.ckpt")
    save_checkpoint({"good": torch.ones(3)}, tmp_path / "good.ckpt")
    (tmp_path / "cut.ckpt").write_bytes((tmp_path / "good.ckpt").read_bytes()[:-5])
    if protocol == "memory":
        for path in tmp_path.glob("*.ckpt"):
            fsspec.filesystem("memory").pipe(f"/{path.name}", path.read_bytes())
    base = {"memory": "memory:/", "file": f"file://{tmp_path}"}.get(protocol)
    base = base or request.getfixturevalue("served")
    assert load_checkpoint(f"{base}/good.ckpt")["good"].sum() == 3
    for name, says in {"payload": "refused", "cut": "no checksum"}.items():
        with pytest.raises(CorruptDataError, match=says) as raised:
            load_checkpoint(f"{base}/{name}.ckpt")
        assert one_line(raised.value, f"{base}/{name}.ckpt")
    assert not mark.exists()
    with pytest.raises(MissingDataError, match="no such checkpoint"):
        load_checkpoint(f"{base}/none.ckpt")
    with pytest.raises(ConfigError, match="local folders only"):
        save_checkpoint({}, f"{base}/new.ckpt")


def test_an_unknown_protocol_is_one_line() -> None:
    with pytest.raises(CorruptDataError, match="cannot be read") as raised:
        load_checkpoint("nowhere://a.ckpt")
    assert one_line(raised.value, "nowhere://a.ckpt")


UNSAFE = ("torch.hub.load", "torch.jit.load", "pickle.load", "pickle.loads")


@pytest.mark.parametrize("path", sorted(REPOSITORY.glob("convtrain/**/*.py")), ids=lambda p: p.name)
def test_nothing_in_the_package_unpickles_anything_but_weights(path: Path) -> None:
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        given = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        assert called not in UNSAFE
        if called == "np.load":
            assert given.get("allow_pickle") == "False", f"{path}:{node.lineno}"
        assert not called.endswith(("load_from_checkpoint", "load_state_dict_from_url"))
        if called == "torch.load" or "ckpt_path" in given:
            assert given.get("weights_only") == "True", f"{path}:{node.lineno}"


# --- disks and kills ------------------------------------------------------------------------------


@pytest.fixture
def file_limit() -> Iterator[Callable[[int], None]]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.999])
def test_a_full_disk_is_one_line_and_the_checkpoint_of_before_is_intact(
    share: float, saved: Path, file_limit: Callable[[int], None]
) -> None:
    before, size = saved.read_bytes(), saved.stat().st_size
    file_limit(int(size * share))
    with pytest.raises(
        TrainingError, match=rf"file too large: {size / 1e3:.3g} kB needed"
    ) as raised:
        save_checkpoint({"state_dict": {"w": torch.randn(50_000)}}, saved)
    file_limit(resource.RLIM_INFINITY)
    assert one_line(raised.value, saved)
    assert saved.read_bytes() == before
    assert names(saved.parent) == ["a.ckpt"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_is_full_only_in_the_end_is_the_same(
    call: str, saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before = saved.read_bytes()
    monkeypatch.setattr(os if call == "fsync" else Path, call, fails)
    with pytest.raises(TrainingError, match=r"no space left on device: .* free on the disk"):
        save_checkpoint({"w": torch.randn(10)}, saved)
    monkeypatch.undo()
    assert saved.read_bytes() == before
    assert names(saved.parent) == ["a.ckpt"]


def test_an_interrupted_save_leaves_the_old_one_alone(
    saved: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*args: Any) -> None:
        raise KeyboardInterrupt

    before = saved.read_bytes()
    monkeypatch.setattr(torch, "save", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint({}, saved)
    assert saved.read_bytes() == before
    assert names(saved.parent) == ["a.ckpt"]


def test_only_strays_of_checkpoints_are_swept(tmp_path: Path) -> None:
    for name in (".last.ckpt.123.tmp", ".step000042.ckpt.9.tmp", "last.ckpt", ".mine.tmp", "a.tmp"):
        (tmp_path / name).touch()
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / ".last.ckpt.123.tmp").touch()
    remove_stale_temporaries(tmp_path, ".ckpt")
    remove_stale_temporaries(tmp_path / "none", ".ckpt")
    assert names(tmp_path) == [".mine.tmp", "a.tmp", "below", "last.ckpt"]
    assert names(tmp_path / "below") == [".last.ckpt.123.tmp"]


def save_for_ever(path: Path, first: int, says: Connection) -> None:
    """Save 80 MB again and again, each time filled with the next number."""
    torch.set_num_threads(1)
    weight = torch.empty(20_000_000)
    for number in range(first, 1000):
        weight.fill_(number)
        says.send(("begins", number))
        save_checkpoint({"number": number, "state_dict": {"w": weight}}, path)
        says.send(("done", number))


@pytest.mark.slow
def test_100_kills_during_a_save_leave_the_old_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if Path("/dev/shm").is_dir():
        monkeypatch.setenv("TMPDIR", "/dev/shm")
    path, drawn, context = tmp_path / "last.ckpt", random.Random(1), get_context("fork")
    duration, number, strays, fates = 0.2, 0, 0, {"old": 0, "new": 0}
    save_checkpoint({"number": 0, "state_dict": {"w": torch.zeros(20_000_000)}}, path)
    for _ in range(100):
        hears, says = context.Pipe(duplex=False)
        writer = context.Process(target=save_for_ever, args=(path, number + 1, says))
        writer.start()
        assert hears.recv() == ("begins", number + 1)
        started = time.perf_counter()
        assert hears.recv() == ("done", number + 1)
        duration = 0.8 * duration + 0.2 * (time.perf_counter() - started)
        assert hears.recv() == ("begins", number + 2)
        time.sleep(drawn.uniform(0, 1.1 * duration))
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        strays += len(list(tmp_path.glob(".last.ckpt.*.tmp")))
        loaded = load_checkpoint(path)
        fates["old" if loaded["number"] == number + 1 else "new"] += 1
        assert loaded["number"] >= number + 1
        assert (loaded["state_dict"]["w"] == loaded["number"]).all()
        number = loaded["number"]
        remove_stale_temporaries(tmp_path, ".ckpt")
        assert names(tmp_path) == ["last.ckpt"]
    print(f"{fates}, {strays} strays, a save takes {duration:.2f} s")
    assert strays > 30, "the kills came while the file was being written"
