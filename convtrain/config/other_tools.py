"""Other tools' names for settings, and what to type here."""

_SAME: dict[str, tuple[str, ...]] = {
    "trainer.max_epochs": ("epochs", "epoch", "num_epochs", "n_epochs", "num_train_epochs"),
    "trainer.max_steps": ("steps", "num_steps", "iterations", "max_iter", "max_iters"),
    "trainer.accelerator": ("device",),
    "trainer.gradient_clip_val": ("clip", "clip_grad", "grad_clip", "max_grad_norm"),
    "trainer.accumulate_grad_batches": ("accumulation", "gradient_accumulation_steps"),
    "trainer.ema": ("ema", "ema_decay", "model_ema_decay"),
    "trainer.log_every_n_steps": ("log_interval", "log_every", "print_freq", "logging_steps"),
    "data.batch_size": ("bs", "batch", "train_batch_size", "per_device_train_batch_size"),
    "data.eval_batch_size": ("val_batch_size", "test_batch_size"),
    "data.root": ("data_dir", "data_path", "dataset_path", "data_root", "root_dir"),
    "data.folds": ("n_splits", "n_folds", "num_folds", "kfold", "k_folds"),
    "data.fold": ("fold_index", "fold_idx", "fold_id"),
    "data.val_fraction": ("val_split", "validation_split", "val_size"),
    "data": ("dataset", "dataset_name"),
    "network": ("arch", "architecture", "backbone"),
    "model.weights": ("pretrained", "pretrained_weights"),
    "network.name": ("run_name", "exp_name", "experiment_name"),
    "optimizer.lr": ("learning_rate", "base_lr", "lr0"),
    "optimizer.weight_decay": ("wd", "l2"),
    "optimizer.groups": ("param_groups", "parameter_groups"),
    "scheduler": ("lr_scheduler", "lr_schedule", "sched"),
    "augment": ("augmentation", "augmentations", "transform", "transforms", "aug"),
    "augment.random_crop": ("crop",),
    "augment.horizontal_flip": ("flip", "hflip", "fliplr"),
    "augment.mixup": ("mixup_alpha",),
    "augment.cutmix": ("cutmix_alpha",),
    "loss.label_smoothing": ("smoothing",),
    "loss.class_weights": ("weight", "class_weight", "pos_weight"),
    "callbacks.early_stopping.patience": ("patience", "early_stop", "early_stopping_patience"),
    "callbacks.checkpoint.every_n_epochs": ("save_every", "save_freq", "save_interval"),
    "hydra.run.dir": ("output_dir", "out_dir", "log_dir", "logdir", "save_dir", "work_dir"),
    "resume": (
        "ckpt", "ckpt_path", "checkpoint", "checkpoint_path", "resume_from_checkpoint",
        "load_checkpoint",
    ),
    "seed": ("random_seed", "random_state", "manual_seed", "seed_everything"),
}  # fmt: skip
"""Other tools' names for a setting, by the key whose value means the same here."""

_OTHERWISE: dict[str, tuple[str, ...]] = {
    "type trainer=gpu trainer.devices=N": ("gpu", "gpus", "num_gpus", "n_gpu", "cuda", "gpu_ids"),
    "type trainer=ddp_cpu trainer.devices=N, or trainer=ddp on GPUs": (
        "ddp", "distributed", "num_processes", "nproc_per_node", "world_size",
    ),
    "type trainer.precision=bf16-mixed": ("amp", "fp16", "bf16", "mixed_precision", "use_amp"),
    "type data.shape=[CHANNELS,HEIGHT,WIDTH]": (
        "image_size", "img_size", "input_size", "input_shape", "imgsz",
    ),
    "type scheduler=cosine scheduler.warmup_epochs=N": ("warmup", "warmup_steps", "warmup_ratio"),
    "type augment.transforms=[RandomErasing], or augment.cutout=N for a square of N pixels": (
        "random_erasing", "erasing",
    ),
    "type augment.transforms=[TrivialAugmentWide], or another class of torchvision": (
        "auto_augment", "autoaugment", "randaugment", "rand_augment", "aa",
    ),
    "type logger=wandb": ("wandb", "use_wandb"),
    "type logger=mlflow": ("mlflow", "use_mlflow"),
    "type logger=custom logger._target_=pytorch_lightning.loggers.CometLogger": ("comet",),
    "metrics go to TensorBoard and metrics.csv, with logger=wandb or logger=mlflow there as well": (
        "neptune", "report_to",
    ),
    "type debug=fast_dev_run": ("dry_run",),
    "images are decoded once, without workers; leave it out, or type augment.workers=N for the "
    "processes of augment.transforms": (
        "num_workers", "workers", "n_workers", "dataloader_num_workers", "pin_memory",
        "persistent_workers", "prefetch_factor",
    ),
    "the order of images follows from seed; leave it out": ("shuffle",),
    "type data.sampling=balanced": ("sampler", "weighted_sampler", "balanced", "oversample"),
    "type trainer.ema=0.999": ("model_ema", "use_ema", "weight_averaging", "swa"),
}  # fmt: skip
"""Other tools' names for a setting that differs or is missing here, by the advice."""

ADVICE: dict[str, str] = {
    **{word: f"did you mean {key}?" for key, words in _SAME.items() for word in words},
    **{word: advice for advice, words in _OTHERWISE.items() for word in words},
}
"""The advice for each of these names."""
