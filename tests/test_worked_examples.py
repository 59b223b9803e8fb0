"""The two worked examples print the numbers that one can work out by hand."""

import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from convtrain.gradients import load
from convtrain.models.build import Style
from tests.conftest import Train


def shown(text: str, what: str) -> torch.Tensor:
    """Return the tensor printed below ``what``."""
    _, _, rest = text.partition(f"{what}, shape ")
    block = re.split(r"\n {1,3}\S|\n\d\. ", rest, maxsplit=1)[0]
    shape = [int(n) for n in re.findall(r"\d+", block.split("\n")[0])]
    numbers = re.findall(r"-?\d+\.\d*(?:e-?\d+)?", block.partition(":")[2])
    return torch.tensor([float(n) for n in numbers]).reshape(shape)


@pytest.fixture
def text_of(train: Train, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    def run(experiment: str) -> str:
        train(f"experiment={experiment}")
        printed = capsys.readouterr().out
        events = EventAccumulator(str(tmp_path / "run"), size_guidance={"tensors": 0})
        events.Reload()
        kept = events.Tensors("walkthrough/text_summary")[0].tensor_proto.string_val[0].decode()
        lines = [line.removeprefix("    ") for line in kept.splitlines()]
        forecast, _, printed = printed.partition("\n")
        assert forecast.startswith("gradient record: ")
        assert "\n".join(lines) == printed.rstrip("\n"), "the terminal and TensorBoard agree"
        return printed

    return run


def test_conv2d_functional(text_of) -> None:
    text = text_of("conv2d_functional")
    ones = torch.ones(1, 1, 3, 3)
    assert torch.equal(shown(text, "   input"), ones)
    assert torch.equal(shown(text, "   conv2d_1.weight"), ones)
    assert torch.equal(shown(text, "output of conv2d_1"), torch.full((1, 1, 1, 1), 9.0))
    assert "grad_fn of conv2d_1: ConvolutionBackward0" in text
    before, after = text.split("5. Gradients are propagated back.")
    assert "gradient of the input before backward(): None" in before
    assert torch.equal(shown(after, "gradient of the input"), ones)
    assert torch.equal(shown(after, "gradient of conv2d_1.weight"), ones)


def test_conv2d_nn(text_of) -> None:
    text = text_of("conv2d_nn")
    weight, bias = shown(text, "   conv2d_1.weight"), shown(text, "   conv2d_1.bias")
    assert weight.shape == (1, 1, 3, 3)
    assert weight.std() > 0
    torch.testing.assert_close(
        shown(text, "output of conv2d_1").flatten(), (weight.sum() + bias), atol=2e-6, rtol=0
    )
    assert torch.equal(shown(text, "gradient of the input"), weight)


@pytest.mark.parametrize("style", ["functional", "nn"])
def test_the_gradient_of_the_input_is_the_weight_to_the_last_bit(style: Style) -> None:
    from convtrain import build_model

    torch.manual_seed(0)
    model = build_model([{"Conv2d": {"out_channels": 1, "kernel_size": 3}}], (1, 3, 3), style=style)
    image = torch.ones(1, 1, 3, 3, requires_grad=True)
    assert image.grad is None
    output = model(image)
    assert type(output.grad_fn).__name__ == "ConvolutionBackward0"
    output.sum().backward()
    assert torch.equal(image.grad, model.get_parameter("conv2d_1.weight"))


@pytest.mark.parametrize("experiment", ["conv2d_functional", "conv2d_nn"])
def test_the_recorded_gradients_are_those_that_are_printed(
    text_of, experiment: str, tmp_path: Path
) -> None:
    _, after = text_of(experiment).split("5. Gradients are propagated back.")
    recorded = load_file(tmp_path / "run" / "gradients" / "tensors" / "000000000001.safetensors")
    names = {"input": "the input"} | {name: name for name in recorded if name != "input"}
    assert len(names) == (2 if experiment == "conv2d_functional" else 3)
    for name, printed in names.items():
        torch.testing.assert_close(
            recorded[name], shown(after, f"gradient of {printed}"), atol=1e-6, rtol=0
        )
    layers = {row["layer"]: row for row in load(tmp_path / "run", "layers").to_pylist()}
    assert layers["input"]["gradient_norm"] == pytest.approx(recorded["input"].norm().item())
    assert layers["conv2d_1"]["gradient_mean"] == 1
