"""A batch that batch norm cannot learn from is said before the training, and by the check."""

import pytest

from convtrain.assembly import make_data, make_model
from convtrain.errors import ConfigError
from convtrain.forecast import forecast
from convtrain.training.small_batches import check_smallest_batch
from tests.conftest import QUICK, Train, compose


def network(*layers: str) -> str:
    return f"network.layers=[{', '.join(layers)}, {{Linear: {{out_features: 10}}}}]"


VECTORS = network("Flatten", "{Linear: {out_features: 8}}", "BatchNorm1d")
PIXELS = network("{Conv2d: {out_channels: 8, kernel_size: 8}}", "BatchNorm2d", "Flatten")
MAPS = network("{Conv2d: {out_channels: 8, kernel_size: 3}}", "BatchNorm2d", "Flatten")
BLOCK = network("Flatten", "{Residual: {body: [{Linear: {out_features: 64}}, BatchNorm1d]}}")
SMALL = (*QUICK, "network=lenet", "data.limit=65", "data.batch_size=32", "logger=none")
# What is wrong ends with what to type; None where it trains.
CASES: dict[str, tuple[list[str], str | None]] = {
    "vectors": ([VECTORS], "set data.drop_last=true"),
    "in the other style": ([VECTORS, "model=nn"], "set data.drop_last=true"),
    "maps of one pixel": ([PIXELS], "set data.drop_last=true"),
    "within a block": ([BLOCK], "set data.drop_last=true"),
    "drop_last": ([VECTORS, "data.drop_last=true"], None),
    "larger maps": ([MAPS], None),
    "no batch norm": ([network("Flatten")], None),
    "two images": ([VECTORS, "data.limit=66"], None),
    "a last batch that is not used": ([VECTORS, "trainer.limit_train_batches=2"], None),
    "a training that ends before it": ([VECTORS, "trainer.max_steps=2"], None),
    "batches of one": (
        [VECTORS, "data.batch_size=1", "data.limit=4"],
        "set data.batch_size=2 or more",
    ),
    "accumulated": ([VECTORS, "trainer.accumulate_grad_batches=2"], "set data.drop_last=true"),
}  # fmt: skip


@pytest.mark.parametrize(("overrides", "end"), CASES.values(), ids=CASES)
def test_check_and_training_agree(train: Train, overrides: list[str], end: str | None) -> None:
    chosen = (*SMALL, *overrides)
    if end is None:
        forecast(compose(*chosen))
        train(*chosen)
        return
    for do in (lambda: forecast(compose(*chosen)), lambda: train(*chosen)):
        with pytest.raises(ConfigError) as raised:
            do()
        (line,) = raised.value.lines
        assert line.startswith("data.batch_size=")
        assert line.endswith(end)


@pytest.mark.parametrize(
    ("limit", "devices", "sync", "fails"),
    [(66, 2, False, True), (67, 2, False, True), (68, 2, False, False), (66, 2, True, False)],
)
def test_each_device_needs_two_images(limit: int, devices: int, sync: bool, fails: bool) -> None:
    config = compose(
        *SMALL, VECTORS, "trainer=ddp_cpu", f"trainer.devices={devices}", f"data.limit={limit}",
        f"trainer.sync_batchnorm={sync}",
    )  # fmt: skip
    data, model = make_data(config), make_model(compose(*SMALL, VECTORS))
    if fails:
        with pytest.raises(ConfigError, match="one for a device"):
            check_smallest_batch(config, data, model)
    else:
        check_smallest_batch(config, data, model)
