"""Hydra's plugins for sweeps, with the defaults that convtrain needs.

The defaults are changed in Hydra's ConfigStore, because no file may have the name of an entry
there; an entry that has a file in ``configs/`` gets another name.
"""

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

CHANGES: dict[str, dict[str, dict[str, object]]] = {
    "sweeper": {
        "basic": {"params": {}},  # nothing can be merged into null, their default
        "optuna": {
            "params": {},
            "direction": "${direction:${sweep.metric},${oc.select:sweep.mode,auto}}",
            "n_jobs": 1,  # trials proposed at a time; with more the search learns from fewer
            "max_failure_rate": 1.0,  # a trial that fails stops no other; sweep.fail_fast does
        },
    },
    "launcher": {"submitit_local": {"timeout_min": 10_000}},  # jobs on this machine need no limit
}
OURS = ("submitit_slurm",)  # files of configs/hydra/launcher, on top of the plugin's _NAME
KNOWN = {"launcher": ("joblib", "submitit_local", "_submitit_slurm"), "sweeper": ("optuna",)}
SEED = 1  # makes the same command propose the same trials again


def change_plugins() -> None:
    """Change the defaults of the plugins that are installed."""
    Plugins.instance()  # finds the plugins, which fill the store
    # Hydra would compose all jobs once more before the first one starts; they are checked already.
    BasicSweeper.validate_batch_is_legal = lambda self, batch: None  # type: ignore[method-assign]
    groups = ConfigStore.instance().repo.get("hydra", {})
    launchers = groups.get("launcher", {})
    for group, choices in CHANGES.items():
        for choice, values in choices.items():
            node = groups.get(group, {}).get(f"{choice}.yaml")
            for key, value in values.items() if node else ():
                OmegaConf.update(node.node, key, value, merge=False)
    for choice in OURS:
        if (node := launchers.pop(f"{choice}.yaml", None)) is not None:
            launchers[f"_{choice}.yaml"] = node
    for group, known in KNOWN.items():
        for choice in known:
            if f"{choice}.yaml" not in groups.get(group, {}):  # the check says what to install
                ConfigStore.instance().store(group=f"hydra/{group}", name=choice, node={})
    for sampler in groups.get("sweeper", {}).get("sampler", {}).values():
        if "seed" in sampler.node:
            OmegaConf.update(sampler.node, "seed", SEED)
