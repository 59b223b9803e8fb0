"""``python -m convtrain export RUN --format FORMAT``: the file computes what the run computes."""

import ast
import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

import convtrain
from convtrain.__main__ import main
from convtrain.assembly import make_data, make_model
from convtrain.errors import ConfigError, NetworkError
from convtrain.pipeline import train
from convtrain.run.directory import Run
from convtrain.use import export
from convtrain.use.formats import onnx, pt2, tensors
from convtrain.use.formats.portable import PixelModel, Portable, make_portable
from convtrain.use.formats.resize import Resize
from tests.conftest import REPOSITORY, compose

TINY = ("data.limit=128", "logger=none", "scheduler=none", "trainer.max_epochs=1")
Capture = pytest.CaptureFixture[str]
Monkey = pytest.MonkeyPatch


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on the digits; tests write elsewhere."""
    path = tmp_path_factory.mktemp("export") / "run"
    overrides = [*TINY, "trainer=cpu", "callbacks.progress_bar=false", "recorder=off"]
    train(compose(*overrides), path, overrides)
    return path


@pytest.fixture(scope="module")
def images() -> Tensor:
    pixels = make_data(compose(*TINY, "trainer=cpu")).splits.test.pixels
    assert isinstance(pixels, Tensor)
    return pixels


def by_hand(folder: Path, images: Tensor) -> Tensor:
    """Return the logits of a model that is built and fed without what is under test."""
    config = compose(*TINY, "trainer=cpu")
    state = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)["state_dict"]
    model = make_model(config)
    model.load_state_dict({k.removeprefix("model."): tensor for k, tensor in state.items()})
    normalised = (images / 255 - config.data.mean[0]) / config.data.std[0]
    with torch.no_grad():
        logits: Tensor = model.eval()(normalised)
    return logits


def read_safetensors(file: Path, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
    from safetensors import safe_open

    config = compose(*TINY, "trainer=cpu")
    model = make_model(config)
    model.load_state_dict(load_file(file), strict=True)
    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    said = json.loads(metadata["normalisation"])
    mean, std = (torch.tensor(said[key]).view(-1, 1, 1) for key in ("mean", "std"))
    return model.eval()((images / 255 - mean) / std), metadata


def read_pt2(file: Path, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
    extra = {"metadata.json": ""}
    return torch.export.load(file, extra_files=extra).module()(images), json.loads(
        extra["metadata.json"]
    )


def read_onnx(file: Path, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
    onnxruntime = pytest.importorskip("onnxruntime")
    session = onnxruntime.InferenceSession(str(file))
    (logits,) = session.run(None, {"images": images.numpy()})
    return torch.from_numpy(logits), session.get_modelmeta().custom_metadata_map


def read_python(file: Path, images: Tensor) -> tuple[Tensor, dict[str, Any]]:
    roots = {name.partition(".")[0] for name in imported(file)}
    assert roots <= {"math", "sys", "pathlib", "torch"}
    module = runpy.run_path(str(file))
    with pytest.raises(TypeError, match="float32: give uint8"):
        module["load"]()(images.float())
    return module["load"]()(images), {**module["METADATA"], "classes": module["CLASSES"]}


def imported(file: Path) -> Iterator[str]:
    """Yield the modules that a file imports when it is imported."""
    for statement in ast.parse(file.read_text()).body:
        if isinstance(statement, ast.Import):
            yield from (name.name for name in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield str(statement.module)


READ = {
    "safetensors": read_safetensors,
    "pt2": read_pt2,
    "onnx": read_onnx,
    "python": read_python,
}


QUICK = (("safetensors", "nn"), ("pt2", "functional"), ("python", "nn"))
CASES = [
    pytest.param(format, style, marks=[] if (format, style) in QUICK else pytest.mark.slow)
    for format in READ
    for style in ("nn", "functional")
]


@pytest.mark.parametrize(("format", "style"), CASES)
def test_a_file_gives_the_logits_of_the_run_for_raw_images(
    format: str, style: str, folder: Path, images: Tensor, tmp_path: Path, capfd: Any
) -> None:
    out = tmp_path / "new" / f"model{Path(export.FORMATS[format].file).suffix}"
    typed = ["export", str(folder), "--format", format, "--style", style, "--out", str(out)]
    assert main([*typed, "--checkpoint=last"]) == 0
    printed = capfd.readouterr()
    assert not printed.err
    assert printed.out.startswith(f"{out}: ")
    assert re.search(r"on \d+ test images, in batches of 1, 3 and \d+: the logits", printed.out)
    assert printed.out.count("\n") == 3
    for count in (1, 7):
        logits, metadata = READ[format](out, images[:count])
        expected = by_hand(folder, images[:count])
        torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-4)
    if format in ("safetensors", "onnx"):  # which hold texts
        metadata |= {key: json.loads(metadata[key]) for key in ("classes", "input")}
    assert metadata["classes"] == [str(digit) for digit in range(10)]
    assert metadata["input"]["shape"] == ["batch", 1, 8, 8]
    assert metadata["run_id"] == Run(folder).read_provenance()["run_id"]
    assert metadata["checkpoint"] == "last.ckpt"
    for path in (REPOSITORY, tmp_path):
        assert str(path).encode() not in out.read_bytes()
    names = {out.name, "model.pt"} if format == "python" else {out.name}
    assert {file.name for file in out.parent.iterdir()} == names


def test_a_file_that_computes_something_else_does_not_get_its_name(
    folder: Path, tmp_path: Path, monkeypatch: Monkey, capsys: Capture
) -> None:
    def write_other_weights(portable: Portable, path: Path) -> None:
        tensors.write(portable, path)
        state = load_file(path)
        name = next(name for name in state if name.endswith("linear_1.bias"))
        state[name][3] += 0.01
        save_file(state, path)

    out = tmp_path / "model.safetensors"
    out.write_text("an earlier export")
    tampered = export.FORMATS["safetensors"]._replace(write=write_other_weights)
    monkeypatch.setitem(export.FORMATS, "safetensors", tampered)
    assert main(["export", str(folder), "--format=safetensors", f"--out={out}"]) == 1
    printed = capsys.readouterr()
    assert "its logits differ from those of the run by up to 0.01, and 0.0" in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out
    assert out.read_text() == "an earlier export"
    assert list(tmp_path.iterdir()) == [out]


@pytest.mark.slow
def test_the_python_file_predicts_image_files_without_convtrain(
    folder: Path, images: Tensor, tmp_path: Path
) -> None:
    out = tmp_path / "digits.py"
    assert main(["export", str(folder), "--format=python", f"--out={out}"]) == 0
    picture = Image.fromarray(images[3, 0].numpy()).resize((50, 40))
    picture.save(tmp_path / "a.png")
    command = [sys.executable, "-I", str(out), "a.png", "a.png"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True)
    found = convtrain.load(folder, device="cpu").predict(tmp_path / "a.png").top[0][0]
    assert done.stdout == f"a.png: {found[0]} {found[1]:.4f}\n" * 2


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_the_python_file_crops_photographs_as_an_evaluation_does(mode: str, tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (12, 30, 40, 3), dtype=np.uint8)
    for index, levels in enumerate(noise):
        path = tmp_path / "photos" / ("cat", "dog")[index % 2] / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(levels).resize((40 + index, 30)).save(path)
    run, out = tmp_path / "run", tmp_path / "photos.py"
    sized = ("data.store_size=20", "data.shape=[3,16,18]", f"data.interpolation={mode}")
    overrides = ("data=image_folder", f"data.root={tmp_path / 'photos'}", "data.batch_size=4")
    train(
        compose(*overrides, *sized, "network=resnet8", "trainer=cpu", "trainer.max_epochs=1"), run
    )
    assert main(["export", str(run), "--format=python", f"--out={out}"]) == 0
    read = runpy.run_path(str(out))["read"]
    preprocessing = convtrain.load(run, device="cpu").preprocessing
    for path in sorted((tmp_path / "photos").rglob("*.png")):
        assert torch.equal(read(path), torch.from_numpy(preprocessing.from_file(path)))
    with pytest.raises(ConfigError, match="leave --resize out, and choose --format python"):
        export.export_model(run, "pt2", resize=True)


MISTAKES = {
    "unknown": (
        ["--format=onx"],
        "--format onx: choose safetensors, pt2, onnx, python; did you mean onnx?",
    ),
    "resize": (["--format=safetensors", "--resize"], "--resize: safetensors cannot hold a resize"),
    "suffix": (["--format=pt2", "--out=a.onnx"], "--out a.onnx: --format pt2 writes a file that"),
    "style": (["--format=pt2", "--style=nm"], "style='nm': choose 'nn' or 'functional'"),
    "no format": (["--style=nn"], "--style: add --format, without which only weights"),
    "no packages": (["--format=onnx"], "--format onnx: needs onnxscript; pip install"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_a_mistake_is_one_line(
    case: str, folder: Path, monkeypatch: Monkey, capsys: Capture
) -> None:
    monkeypatch.setattr(onnx, "find_spec", lambda name: name if name != "onnxscript" else None)
    options, says = MISTAKES[case]
    before = sorted(folder.iterdir())
    assert main(["export", str(folder), *options]) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert sorted(folder.iterdir()) == before


# --- parts ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["crop", "stretch"])
@pytest.mark.parametrize("size", [(37, 52), (52, 37), (8, 11), (12, 9), (300, 90), (3, 200)])
def test_the_resize_is_that_of_pillow(how: str, size: tuple[int, int]) -> None:
    """Newer versions of Pillow resize the height of tall images first, which rounds otherwise."""
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3)).astype(np.uint8)
    resize = ImageOps.fit if how == "crop" else Image.Image.resize
    expected = np.asarray(resize(Image.fromarray(pixels), (11, 8), Image.Resampling.BILINEAR))
    images = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    found = Resize(8, 11, crop=how == "crop")(images)[0].permute(1, 2, 0).numpy()
    difference = np.abs(found.astype(int) - expected)
    assert difference.max() <= (size[0] > size[1])


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (3, 5)])
def test_adaptive_max_pooling_by_regions_has_the_same_bits(size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size)
    pooled, _ = onnx._adaptive_max(images, (3, 4))
    assert torch.equal(pooled, F.adaptive_max_pool2d(images, (3, 4)))


class FixedBatch(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images.view(2, 64)


class ReadsValues(nn.Module):
    def forward(self, images: Tensor) -> Tensor:
        return images if images.sum() > 0 else -images


def portable_of(folder: Path, model: nn.Module) -> Portable:
    portable = make_portable(convtrain.load(folder, device="cpu"))
    return replace(portable, model=PixelModel(model, portable.model.normalise).eval())


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (
            nn.Sequential(FixedBatch()),
            "0 (FixedBatch) computes with a fixed batch size",
        ),
        (nn.Sequential(nn.Flatten(), ReadsValues()), "1 (ReadsValues) cannot be traced by torch.e"),
    ],
)
def test_a_layer_that_cannot_be_traced_is_named(folder: Path, model: nn.Module, says: str) -> None:
    with pytest.raises(NetworkError, match=re.escape(f"--format pt2: {says}")) as caught:
        pt2.trace(portable_of(folder, model))
    assert "\n" not in str(caught.value)
