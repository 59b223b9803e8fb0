"""``hydra/sweeper=optuna`` as one wants it here: seeded, and asking for what the metric says.

The plugin keeps its configuration in Hydra's store, where a file of the same name may not stand
beside it, so its values are changed there.
"""

from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from omegaconf import OmegaConf

OWN = {
    "direction": "${direction:${sweep.metric}}",
    "n_jobs": 1,  # trials proposed at a time; with more the search learns from fewer
    "max_failure_rate": 1.0,  # a trial that fails stops no other; sweep.fail_fast does
}
SEED = 1  # with one, the same command proposes the same trials again


def seed_searches() -> None:
    """Change the plugin's defaults, where it is installed."""
    Plugins.instance()  # finds the plugins, which fill the store
    store = ConfigStore.instance()
    groups = store.repo.get("hydra", {}).get("sweeper", {})
    if "optuna.yaml" not in groups:
        return
    for key, value in OWN.items():
        OmegaConf.update(groups["optuna.yaml"].node, key, value)
    for sampler in groups.get("sampler", {}).values():
        if "seed" in sampler.node:
            OmegaConf.update(sampler.node, "seed", SEED)
