"""The setting that benchmarks share: two convolutions, and images of MNIST's size."""

import logging
import warnings
from pathlib import Path

import torch
from torch import Tensor, nn

from convtrain.command import configure as command
from convtrain.config.schema import Config

IMAGES, MEAN, STD = 55_000, 0.1307, 0.3081
LAYERS = (
    "[{Conv2d:{out_channels:16,kernel_size:3,padding:1}},ReLU,{MaxPool2d:{kernel_size:2}},"
    "{Conv2d:{out_channels:32,kernel_size:3,padding:1}},ReLU,{MaxPool2d:{kernel_size:2}},"
    "Flatten,{Linear:{out_features:10}}]"
)
"""The network, in command line syntax."""

EVERYTHING = (
    "data=mnist", f"network.layers={LAYERS}", "optimizer=sgd_momentum", "optimizer.lr=0.05",
    "optimizer.nesterov=false", "optimizer.weight_decay=0", "scheduler=none", "recorder=norms",
    "trainer=cpu", "logger=both",
)  # fmt: skip
"""Overrides for a training with metrics, TensorBoard, the recorder and the bar all on."""


def configure(*overrides: str) -> Config:
    """Return the checked configuration of a command."""
    return command.configure([*EVERYTHING, *overrides]).config


def bare_network() -> nn.Sequential:
    """Return the network in plain torch."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 10),
    )


def made_up(count: int = IMAGES) -> tuple[Tensor, Tensor]:
    """Return random images, uint8 (N, 1, 28, 28), and labels."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (count, 1, 28, 28), dtype=torch.uint8, generator=generator)
    return pixels, torch.randint(0, 10, (count,), generator=generator)


def quiet() -> None:
    """Suppress warnings and log lines below errors."""
    warnings.simplefilter("ignore")
    for name in ("pytorch_lightning", "lightning.pytorch", "convtrain"):
        logging.getLogger(name).setLevel(logging.ERROR)


REPOSITORY = Path(__file__).parent.parent
