"""Which values each key allows, written down by hand: the oracle of the schema's tests.

A row gives the choices that bring the key about and a test of values that are alone in question;
what keys must agree on with one another is not its business.
"""

import math
import sys
from collections.abc import Callable
from typing import Any

Allows = Callable[[Any], bool]
LARGEST = 2_147_483_647


def whole(low: int, high: int = LARGEST) -> Allows:
    return lambda v: isinstance(v, int) and not isinstance(v, bool) and low <= v <= high


def real(test: Callable[[float], bool] = lambda v: True) -> Allows:
    def allows(v: Any) -> bool:
        if isinstance(v, bool) or not isinstance(v, int | float):
            return False
        return abs(v) <= sys.float_info.max and test(v)

    return allows


def one_of(*values: Any) -> Allows:
    return lambda v: any(type(v) is type(value) and v == value for value in values)


def flag(v: Any) -> bool:
    return isinstance(v, bool)


def text(v: Any) -> bool:
    return (
        isinstance(v, str) and 0 < len(v) <= 4096 and not any(ord(c) < 32 or c == "\x7f" for c in v)
    )


def file_name(v: Any) -> bool:
    plain = text(v) and all(c.isalnum() or c in "_+-." for c in v)
    return plain and len(v) <= 100 and not v.startswith(".")


def either(*tests: Allows) -> Allows:
    return lambda v: any(test(v) for test in tests)


def list_of(test: Allows, least: int = 0, most: float = math.inf) -> Allows:
    return lambda v: isinstance(v, list) and least <= len(v) <= most and all(map(test, v))


def mapping(v: Any) -> bool:
    return isinstance(v, dict)


def nothing(v: Any) -> bool:
    return v is None


fraction = real(lambda v: 0 <= v <= 1)
inside = real(lambda v: 0 < v < 1)
decay = real(lambda v: 0 <= v < 1)
to_a_million = real(lambda v: 0 <= v <= 1e6)
positive_to_a_million = real(lambda v: 0 < v <= 1e6)
positive_to_a_billion = real(lambda v: 0 < v <= 1e9)
to_a_billion = real(lambda v: 0 <= v <= 1e9)
from_one = real(lambda v: 1 <= v <= 1e12)
tiny_to_a_million = real(lambda v: 1e-30 <= v <= 1e6)
seed = whole(0, 2**32 - 1)
limit = either(whole(0), lambda v: isinstance(v, float) and fraction(v))
metric = one_of("val/loss", "val/acc")
mode = one_of("auto", "min", "max")

DATA: dict[str, Allows] = {
    "root": text,
    "download": flag,
    "allow_change": flag,
    "batch_size": whole(1),
    "eval_batch_size": whole(1),
    "val_fraction": inside,
    "split_seed": seed,
    "limit": either(whole(1), nothing),
    "sampling": one_of("shuffled", "balanced"),
    "drop_last": flag,
    "overfit_batches": either(whole(1), nothing),
    "memory_gib": positive_to_a_million,
    "shape": list_of(whole(1, 65_535), 3, 3),
    "num_classes": either(whole(1, 1_000_000), nothing),
    "classes": either(list_of(text, 1), nothing),
    "mean": list_of(real(lambda v: -1000 <= v <= 1000)),
    "std": list_of(real(lambda v: 1e-6 <= v <= 1000)),
}
ADAM = {
    "lr": positive_to_a_million,
    "betas": list_of(decay, 2, 2),
    "eps": tiny_to_a_million,
    "weight_decay": to_a_million,
}


def below(group: str, keys: dict[str, Allows]) -> dict[str, Allows]:
    return {f"{group}.{key}": allows for key, allows in keys.items()}


ROWS: list[tuple[list[str], dict[str, Allows]]] = [
    (
        [],
        {
            "seed": seed,
            "resume": either(text, nothing),
            "trust": list_of(text),
            "alarm": one_of("warn", "stop", "checkpoint", "off"),
            **below(
                "recorder",
                {
                    "name": one_of("off", "norms", "stats", "full", "debug"),
                    "norms.every_n_steps": whole(1),
                    "norms.first_n_steps": whole(0),
                    "tensor_names": list_of(text),
                    "include": list_of(text),
                    "exclude": list_of(text),
                    "flush_every_n_steps": whole(1),
                    "max_mib": positive_to_a_billion,
                    "max_overhead": real(lambda v: 0 < v <= 1),
                },
            ),
            **below("data", {**DATA, "name": one_of("digits"), "test_fraction": inside}),
            **below(
                "network",
                {
                    "name": file_name,
                    "layers": list_of(lambda v: True, 1),
                    "blocks": mapping,
                    "init": mapping,
                    "parametrize": mapping,
                    "prune": mapping,
                },
            ),
            "model.style": one_of("functional", "nn"),
            **below(
                "augment",
                {
                    "random_crop": whole(0),
                    "padding_mode": one_of("constant", "reflect"),
                    "horizontal_flip": fraction,
                    "flip_alternates": flag,
                    "cutout": whole(0),
                    "mixup": real(lambda v: 0 <= v <= 1000),
                    "cutmix": real(lambda v: 0 <= v <= 1000),
                    "transforms": list_of(lambda v: True),
                    "workers": either(whole(0, 1024), one_of("auto")),
                },
            ),
            **below("loss", {"name": one_of("cross_entropy"), "label_smoothing": fraction}),
            **below(
                "optimizer",
                {
                    "name": one_of("sgd"),
                    "lr": positive_to_a_million,
                    "momentum": decay,
                    "nesterov": flag,
                    "weight_decay": to_a_million,
                    "layer_decay": either(real(lambda v: 0 < v <= 1), nothing),
                },
            ),
            **below(
                "scheduler",
                {
                    "name": one_of("onecycle"),
                    "pct_start": fraction,
                    "div_factor": from_one,
                    "final_div_factor": from_one,
                    "anneal_strategy": one_of("cos", "linear"),
                },
            ),
            **below(
                "trainer",
                {
                    "accelerator": one_of("auto", "cpu", "gpu", "mps"),
                    "devices": either(whole(1), one_of("auto")),
                    "strategy": one_of("auto", "ddp", "fsdp"),
                    "num_nodes": whole(1),
                    "max_epochs": whole(1),
                    "max_steps": either(whole(1), nothing),
                    "precision": one_of(
                        32, 32.0, "32-true", "bf16-mixed", "16-mixed", 64, 64.0, "64-true"
                    ),
                    "gradient_clip_val": either(real(lambda v: 0 < v <= 1e30), nothing),
                    "ema": either(real(lambda v: 0 < v < 1), nothing),
                    "gradient_clip_algorithm": one_of("norm", "value"),
                    "accumulate_grad_batches": whole(1),
                    "val_check_interval": either(
                        whole(1), lambda v: isinstance(v, float) and 0 < v <= 1
                    ),
                    "log_every_n_steps": whole(1),
                    "deterministic": flag,
                    "channels_last": one_of(True, False, "auto"),
                    "compile": either(
                        one_of("default", "reduce-overhead", "max-autotune"), nothing
                    ),
                    "threads": either(whole(1, 1024), nothing),
                    "sync_batchnorm": flag,
                    "limit_train_batches": limit,
                    "limit_val_batches": limit,
                    "limit_test_batches": limit,
                    "fast_dev_run": either(flag, whole(1)),
                    "profiler": either(one_of("stages", "simple", "advanced", "pytorch"), nothing),
                },
            ),
            **below(
                "callbacks",
                {
                    "checkpoint.monitor": metric,
                    "checkpoint.mode": mode,
                    "checkpoint.save_top_k": whole(0),
                    "checkpoint.every_n_epochs": whole(1),
                    "checkpoint.every_n_steps": either(whole(1), nothing),
                    "checkpoint.every_n_minutes": either(positive_to_a_million, nothing),
                    "checkpoint.keep_last": whole(1),
                    "checkpoint.test_with": one_of("best", "last"),
                    "early_stopping.monitor": metric,
                    "early_stopping.mode": mode,
                    "early_stopping.patience": either(whole(1), nothing),
                    "early_stopping.min_delta": to_a_billion,
                    "progress_bar": flag,
                    "walkthrough": flag,
                    "report": flag,
                    "custom": list_of(mapping),
                },
            ),
            **below(
                "logger",
                {
                    "tensorboard": flag,
                    "csv": flag,
                    "images": whole(0, 1024),
                    "loggers": list_of(mapping),
                },
            ),
            "metrics": mapping,
            **below("sweep", {
                    "metric": metric,
                    "mode": mode,
                    "fail_fast": flag,
                    "retry_failed": flag,
                    "gpus": either(list_of(either(whole(0), text), 1), one_of("auto"), nothing),
                },
            ),
        },
    ),
    (
        ["data=synthetic", "loss=multi_margin", "optimizer=adamw", "scheduler=cosine",
         "model=torchvision"],
        {
            **below(
                "data",
                {
                    **DATA,
                    "name": one_of("synthetic"),
                    "fill": one_of("noise", "ones"),
                    "train_size": whole(1),
                    "test_size": whole(1),
                },
            ),
            **below(
                "loss",
                {"name": one_of("multi_margin"), "margin": to_a_million, "p": one_of(1, 2)},
            ),
            **below("optimizer", {"name": one_of("adam", "adamw"), **ADAM}),
            **below(
                "scheduler",
                {"name": one_of("cosine"), "final_fraction": fraction,
                 "warmup_epochs": to_a_billion},
            ),
            **below("model", {"style": one_of("torchvision"), "name": file_name}),
        },
    ),
    (
        ["data=image_folder", "data.root=FOLDER", "loss=mse", "optimizer=rmsprop",
         "scheduler=step"],
        {
            **below(
                "data",
                {
                    **DATA,
                    "name": one_of("image_folder"),
                    "resize": one_of("crop", "stretch"),
                    "test_fraction": inside,
                    "max_pixels": whole(1),
                    "background": either(whole(0, 255), list_of(whole(0, 255), 3, 3)),
                    "value_range": either(list_of(real(lambda v: abs(v) <= 1e12), 2, 2), nothing),
                    "cache_dir": either(text, nothing),
                    "cache_gib": positive_to_a_million,
                },
            ),
            **below("loss", {"name": one_of("nll", "mse", "sum")}),
            **below(
                "optimizer",
                {
                    "name": one_of("rmsprop"),
                    "lr": positive_to_a_million,
                    "alpha": decay,
                    "eps": tiny_to_a_million,
                    "momentum": decay,
                    "weight_decay": to_a_million,
                },
            ),
            **below(
                "scheduler",
                {
                    "name": one_of("step"),
                    "step_epochs": real(lambda v: 0 < v <= 1e9),
                    "gamma": real(lambda v: 0 < v <= 1),
                    "warmup_epochs": to_a_billion,
                },
            ),
        },
    ),
    (
        ["data=cifar10", "scheduler=plateau", "model=custom", "model._target_=torch.nn.Identity",
         "loss=focal"],
        {
            **below(
                "loss",
                {
                    "name": one_of("focal"),
                    "gamma": real(lambda v: 0 <= v <= 100),
                    "form": one_of("softmax", "sigmoid"),
                    "alpha": either(fraction, list_of(to_a_million, 1), nothing),
                },
            ),
            **below(
                "data",
                {
                    **DATA,
                    "name": one_of(
                        "mnist", "fashion_mnist", "kmnist", "cifar10", "cifar100", "svhn"
                    ),
                },
            ),
            **below(
                "scheduler",
                {
                    "name": one_of("plateau"),
                    "monitor": metric,
                    "mode": mode,
                    "factor": inside,
                    "patience": whole(0),
                },
            ),
            **below(
                "model",
                {"style": one_of("custom"), "_target_": lambda v: isinstance(v, str)},
            ),
        },
    ),
    (
        ["recorder=debug", "loss=custom", "loss._target_=torch.nn.MSELoss"],
        {
            **below("loss", {"name": one_of("custom"), "_target_": lambda v: isinstance(v, str)}),
            **below(
                "recorder",
                {
                    f"{detail}.{key}": whole(low)
                    for detail in ("norms", "statistics", "distributions", "tensors")
                    for key, low in (("every_n_steps", 1), ("first_n_steps", 0))
                },
            ),
        },
    ),
    (
        ["scheduler=none", "loss=bce", "optimizer=muon"],
        {
            **below("scheduler", {"name": one_of("none"), "warmup_epochs": to_a_billion}),
            **below("loss", {"name": one_of("bce"), "label_smoothing": fraction}),
            **below(
                "optimizer",
                {
                    "name": one_of("muon"),
                    "lr": positive_to_a_million,
                    "momentum": decay,
                    "nesterov": flag,
                    "weight_decay": to_a_million,
                    "ns_coefficients": list_of(real(lambda v: abs(v) <= 1e6), 3, 3),
                    "ns_steps": whole(1, 99),
                    "eps": tiny_to_a_million,
                    "adjust_lr_fn": either(one_of("original", "match_rms_adamw"), nothing),
                    "adamw_lr": positive_to_a_million,
                    "adamw_betas": list_of(decay, 2, 2),
                    "adamw_eps": tiny_to_a_million,
                    "adamw_weight_decay": to_a_million,
                },
            ),
        },
    ),
    (
        ["scheduler=linear", "optimizer=nadam"],
        {
            **below(
                "scheduler",
                {"name": one_of("linear", "cosine"), "final_fraction": fraction,
                 "warmup_epochs": to_a_billion},
            ),
            **below(
                "optimizer",
                {"name": one_of("nadam"), **ADAM, "momentum_decay": to_a_million,
                 "decoupled_weight_decay": flag},
            ),
        },
    ),
    (
        ["scheduler=polynomial", "optimizer=radam"],
        {
            **below(
                "scheduler",
                {"name": one_of("polynomial"), "power": real(lambda v: 0 < v <= 1000),
                 "final_fraction": fraction, "warmup_epochs": to_a_billion},
            ),
            **below("optimizer", {"name": one_of("radam"), **ADAM, "decoupled_weight_decay": flag}),
        },
    ),
    (
        ["scheduler=exponential", "optimizer=adagrad"],
        {
            **below(
                "scheduler",
                {"name": one_of("exponential"), "gamma": real(lambda v: 0 < v <= 1),
                 "warmup_epochs": to_a_billion},
            ),
            **below(
                "optimizer",
                {
                    "name": one_of("adagrad"),
                    "lr": positive_to_a_million,
                    "lr_decay": to_a_million,
                    "initial_accumulator_value": to_a_million,
                    "eps": tiny_to_a_million,
                    "weight_decay": to_a_million,
                },
            ),
        },
    ),
    (
        ["scheduler=cosine_restarts", "optimizer=adafactor"],
        {
            **below(
                "scheduler",
                {"name": one_of("cosine_restarts"), "t_0": positive_to_a_billion,
                 "t_mult": whole(1, 1000), "final_fraction": fraction,
                 "warmup_epochs": to_a_billion},
            ),
            **below(
                "optimizer",
                {
                    "name": one_of("adafactor"),
                    "lr": positive_to_a_million,
                    "beta2_decay": real(lambda v: -1e6 <= v <= 0),
                    "eps": list_of(either(tiny_to_a_million, nothing), 2, 2),
                    "d": real(lambda v: 1 <= v <= 1e6),
                    "weight_decay": to_a_million,
                },
            ),
        },
    ),
]  # fmt: skip
"""Overrides, and what each key of the configuration they compose allows."""
