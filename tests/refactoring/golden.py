"""The golden runs: short trainings that together pass through most of the training code."""

from collections.abc import Iterator

TINY = (
    "trainer=cpu", "trainer.max_epochs=2", "trainer.limit_train_batches=4",
    "trainer.limit_val_batches=1", "trainer.limit_test_batches=1", "trainer.log_every_n_steps=1",
    "data.batch_size=16", "data.eval_batch_size=16", "callbacks.progress_bar=false", "logger=csv",
    "recorder.max_overhead=1",  # so that time does not decide which steps are recorded
)  # fmt: skip
COLOUR = (
    "data=synthetic", "data.shape=[3,16,16]", "data.train_size=128", "data.test_size=32",
)  # fmt: skip
WITH_DROPOUT = (
    "network.layers=[{Conv2d:{out_channels:6,kernel_size:5,padding:2}},ReLU,"
    "{MaxPool2d:{kernel_size:2}},{Dropout2d:{p:0.2}},{Conv2d:{out_channels:16,kernel_size:5}},ReLU,"
    "{MaxPool2d:{kernel_size:2}},Flatten,{Linear:{out_features:84}},ReLU,{Dropout:{p:0.5}},"
    "{Linear:{out_features:10}}]"
)
TRANSFORMER = (
    "network.layers=[{Conv2d:{out_channels:16,kernel_size:4,stride:4}},{Flatten:{start_dim:2}},"
    "{Permute:{dims:[0,2,1]}},{TransformerEncoderLayer:{nhead:4,dim_feedforward:32,"
    "batch_first:true}},{Select:{dim:1,index:0}},LayerNorm,{Linear:{out_features:10}}]"
)

RUNS: dict[str, tuple[str, ...]] = {
    "digits_functional_norms": ("model=functional", "recorder=norms"),
    "digits_functional_debug": ("model=functional", "recorder=debug", "logger=both"),
    "digits_nn_norms": ("model=nn", "recorder=norms", "logger=both"),
    "digits_nn_debug": ("model=nn", "recorder=debug"),
    "lenet": (
        "network=lenet", WITH_DROPOUT, *COLOUR, "recorder=full",
        "trainer.accumulate_grad_batches=2", "trainer.gradient_clip_val=0.5",
    ),
    "resnet8": (
        "network=resnet8", *COLOUR, "augment=mixup", "augment.random_crop=2", "augment.cutout=4",
        "model=nn", "recorder=stats",
    ),
    "lstm": (
        "network=lstm", "optimizer=adamw", "scheduler=cosine", "scheduler.warmup_epochs=0.5",
        "loss.label_smoothing=0.1", "data.drop_last=true",
    ),
    "transformer": (TRANSFORMER, *COLOUR, "optimizer=adamw", "recorder=stats"),
    "plateau": (
        "scheduler=plateau", "scheduler.patience=0", "optimizer=rmsprop", "loss=mse",
        "trainer.max_epochs=4", "callbacks.early_stopping.patience=2", "model=nn",
    ),
    "muon": (
        "optimizer=muon", "scheduler=cosine_restarts", "scheduler.t_0=1",
        "scheduler.warmup_epochs=0.5",
    ),
    "custom": (
        "optimizer=custom", "optimizer._target_=torch.optim.ASGD", "optimizer.lr=0.1",
        "scheduler=custom", "scheduler._target_=torch.optim.lr_scheduler.ExponentialLR",
        "scheduler.gamma=0.5", "model=nn",
    ),
    "max_steps": (
        "trainer.max_epochs=4", "trainer.max_steps=10", "trainer.val_check_interval=0.5",
        "callbacks.checkpoint.test_with=best", "callbacks.checkpoint.save_top_k=2",
        "scheduler=step", "scheduler.step_epochs=1", "trainer.limit_train_batches=1.0",
        "data.limit=48", "augment=shift",
    ),
    "bf16": ("trainer.precision=bf16-mixed", "optimizer=adam", "recorder=full", "data.limit=64"),
    "groups": (
        "network=resnet8", *COLOUR, "recorder=stats", "optimizer.no_decay=[bias,norm]",
        "trainer.gradient_clip_val=1", "optimizer.layer_decay=0.8",
        "optimizer.groups=[{match:conv2d_1.*,freeze:true},{match:linear*,lr_scale:10},"
        "{match:'*.conv*.weight',optimizer:{name:muon,lr:0.02}}]",
    ),
    "ema": (
        "network=resnet8", *COLOUR, "trainer.ema=0.9", "trainer.accumulate_grad_batches=2",
        "trainer.val_check_interval=0.5", "callbacks.checkpoint.test_with=best",
    ),
    "torchvision": (
        "data=torchvision", "data.name=FakeData", "data.num_classes=10", "data.size=160",
        "data.image_size=[3,20,16]", "data.shape=[3,16,16]", "network=lenet",
    ),
    "ddp_cpu": ("trainer=ddp_cpu", *COLOUR, "network=convnet", "recorder=debug"),
}  # fmt: skip
"""A name, and what is typed after TINY."""

KILLED = (
    "model=functional", WITH_DROPOUT, *COLOUR, "augment=crop_flip", "recorder=full",
    "recorder.flush_every_n_steps=2", "trainer.max_epochs=3", "trainer.limit_train_batches=6",
    "trainer.accumulate_grad_batches=2", "callbacks.early_stopping.patience=2",
    "callbacks.checkpoint.every_n_steps=2", "scheduler=plateau", "scheduler.patience=0",
)  # fmt: skip
KILLED_AT = 6
"""The optimiser's step, from 1, after which SIGKILL ends the run: the last of the second epoch."""

SWEEP = ("-m", "model=functional,nn", "optimizer=sgd_momentum,adam", "recorder=stats")


def command(name: str) -> list[str]:
    """Return what is typed after ``python train.py`` for a golden run, but for its directory."""
    special = {"killed": KILLED, "uninterrupted": KILLED, "sweep": SWEEP}
    typed = special[name] if name in special else RUNS[name]
    return [*dict(_by_key((*TINY, *typed))).values()]


def names() -> list[str]:
    """Return the names of all golden runs, the longest first."""
    return ["sweep", "ddp_cpu", "killed", "uninterrupted", *(n for n in RUNS if n != "ddp_cpu")]


def _by_key(typed: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for word in typed:
        yield word.split("=")[0], word
