"""Make the pictures of the documentation: train a small run, and take them of it.

Needs Chromium or Chrome. Digits take about a minute; MNIST, whose folder ``--mnist`` names, some
minutes.
"""

import argparse
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

from docs.generate.pictures import FOLDER, MAX_BYTES, NAMES, take
from docs.generate.shell import Shell
from tests.browser import CHROMIUM, Browser

TRAIN = "convtrain train hydra.run.dir=RUN recorder=full trainer.log_every_n_steps=10"
MNIST = " experiment=mnist trainer.max_epochs=2 data.root="

parser = argparse.ArgumentParser(prog="python -m docs.generate.pictures", description=__doc__)
parser.add_argument("picture", nargs="*", help=f"{', '.join(NAMES)}; all of them by default")
parser.add_argument("--mnist", metavar="FOLDER", help="data.root of MNIST")
parser.add_argument("--run", metavar="RUN", help="take the pictures of this run, and train none")
arguments = parser.parse_args()
if unknown := set(arguments.picture) - set(NAMES):
    parser.error(f"{', '.join(sorted(unknown))}: no such picture; give some of {', '.join(NAMES)}")
if CHROMIUM is None:
    parser.error("neither chromium nor chrome is on the PATH")
wanted = arguments.picture or NAMES
FOLDER.mkdir(exist_ok=True)
with TemporaryDirectory() as place:
    work = Path(place)
    (work / "here").mkdir()
    shell, browser = Shell(work / "here", work / "tools"), Browser(str(work / "chromium"))
    try:
        if arguments.run:
            shutil.copytree(arguments.run, shell.folder / "RUN")
        elif set(wanted) & {"report", "predictions", "heat-map"}:
            data = f"{MNIST}{arguments.mnist}" if arguments.mnist else ""
            print(shell.run(TRAIN + data))
        for name in wanted:
            to = FOLDER / f"{name}.png"
            if name == "terminal":
                take.terminal(shell, browser, "convtrain train", to)
            elif name == "heat-map":
                take.heat_map(shell, "RUN", to)
            elif name == "tensorboard":
                take.tensorboard(shell, browser, to)
            elif name == "report":
                take.report(shell, browser, "RUN", "", "Learning rate", to)
            else:
                first, last = "Predictions on the test images", "Gradients and filters"
                take.report(shell, browser, "RUN", first, last, to)
            print(f"{to}: {take.quantise(to, MAX_BYTES):,} bytes")
    finally:
        browser.close()
