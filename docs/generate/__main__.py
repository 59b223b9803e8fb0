"""Write pages of the documentation: all of them, or those that are named."""

import argparse
import warnings
from importlib import import_module
from pathlib import Path

import torch

NAMES = sorted({path.stem for path in Path(__file__).parent.glob("[!_]*.py")} - {"shell"})

parser = argparse.ArgumentParser(prog="python -m docs.generate", description=__doc__)
parser.add_argument("page", nargs="*", help=f"{', '.join(NAMES)}; all of them by default")
arguments = parser.parse_args()
if unknown := set(arguments.page) - set(NAMES):
    parser.error(f"{', '.join(sorted(unknown))}: no such page; give some of {', '.join(NAMES)}")
torch.set_num_threads(1)  # another number changes the last bits
warnings.simplefilter("ignore")  # layers warn of arguments that the cases try on purpose
for name in arguments.page or NAMES:
    generator = import_module(f"docs.generate.{name}")
    generator.PAGE.write_text(generator.page())
    print(generator.PAGE)
