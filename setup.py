"""Maps the top-level folder of configs into the package; pyproject.toml holds everything else."""

from setuptools import find_namespace_packages, find_packages, setup

groups = (f"convtrain.configs.{group}" for group in find_namespace_packages("configs"))
setup(
    packages=[*find_packages(include=["convtrain*"]), "convtrain.configs", *groups],
    package_dir={"convtrain.configs": "configs"},
)
