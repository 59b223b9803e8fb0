"""Maps top-level folders into the package; pyproject.toml holds everything else."""

from setuptools import find_namespace_packages, find_packages, setup

FOLDERS = ("configs", "template")

packages = find_packages(include=["convtrain*"])
for folder in FOLDERS:
    below = find_namespace_packages(folder, exclude=["*__pycache__"])
    packages += [f"convtrain.{folder}", *(f"convtrain.{folder}.{name}" for name in below)]
setup(packages=packages, package_dir={f"convtrain.{folder}": folder for folder in FOLDERS})
