"""convtrain as a stranger has it: from a wheel, in a folder of their own, without the clone.

The folder holds a package, an experiment that uses it, and files that have the names of modules
that libraries import, and of a plugin of Hydra's; none of those may run.
"""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from convtrain.__main__ import verbs_by_name
from convtrain.use.bits import compare_bits
from tests.conftest import REPOSITORY

pytestmark = pytest.mark.slow

SOURCES = ("convtrain", "configs", "template", "pyproject.toml", "setup.py", "README.md", "LICENSE")
MINE = """# @package _global_
data:
  limit: 64
trainer:
  max_epochs: 1
callbacks:
  progress_bar: false
  custom: [{_target_: mypackage.callback.Note}]
trust: [mypackage]
"""
NOTE = """
import os
from pathlib import Path
import helper  # beside the package
from pytorch_lightning import Callback

class Note(Callback):
    def on_train_end(self, trainer, module):
        Path(helper.NOTES, str(os.getpid())).touch()
"""
TRAP = "from pathlib import Path\nPath(__file__).with_name('executed').touch()\n"
QUICK = ("experiment=mine", "logger=csv")


class Installed:
    """A folder, and the programs of an environment in which convtrain is installed."""

    def __init__(self, environment: Path, folder: Path) -> None:
        self.programs, self.folder = environment / "bin", folder
        files = {
            "configs/experiment/mine.yaml": MINE,
            "mypackage/__init__.py": "",
            "mypackage/callback.py": NOTE,
            "helper.py": f"NOTES = {str(folder / 'notes')!r}\n",
            "random.py": TRAP,
            "datasets/__init__.py": TRAP,
            "hydra_plugins/evil.py": TRAP,
        }
        for name, text in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text)
        (folder / "notes").mkdir()

    def run(
        self, program: str, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        return subprocess.run(
            [self.programs / program, *arguments], cwd=self.folder, capture_output=True, text=True,
            env={**environment, "OMP_NUM_THREADS": "1", **variables},
        )  # fmt: skip

    def __call__(self, program: str, *arguments: str) -> str:
        """Return what a command prints that succeeds."""
        done = self.run(program, *arguments)
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert not list(self.folder.rglob("executed"))
        return done.stdout

    @property
    def trained(self) -> int:
        """How many processes have trained with the callback."""
        return len(list((self.folder / "notes").iterdir()))


def make_environment(folder: Path, *install: str) -> Path:
    """Return an environment with the libraries of this one, and a convtrain of its own.

    Python reads no .pth files in the folders that a .pth file names, so an editable install of this
    environment is not seen.
    """
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (packages,) = folder.glob("lib/python3*/site-packages")
    libraries = [path for path in sys.path if Path(path).name == "site-packages"]
    (packages / "libraries.pth").write_text("\n".join(libraries))
    subprocess.run(
        [
            sys.executable, "-m", "pip", "--python", folder / "bin" / "python", "install",
            "--quiet", "--no-deps", "--no-index", "--no-build-isolation", *install,
        ],
        check=True,
    )  # fmt: skip
    return folder


def copy_sources(folder: Path) -> Path:
    for name in SOURCES:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        elif source.is_file():
            folder.mkdir(exist_ok=True)
            shutil.copy(source, folder)
    return folder


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("built")
    subprocess.run(
        [
            sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation",
            "--wheel-dir", folder, copy_sources(folder / "source"),
        ],
        check=True,
    )  # fmt: skip
    (built,) = folder.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_environment(tmp_path_factory.mktemp("installed") / "environment", str(wheel))


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Installed:
    return Installed(environment, tmp_path / "project")


def test_the_wheel_holds_every_file_of_the_package_and_of_configs(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as packed:
        names = {Path(name) for name in packed.namelist()}
    for folder in ("convtrain", "configs", "template"):
        inside = Path("convtrain", "" if folder == "convtrain" else folder)
        files = [path for path in (REPOSITORY / folder).rglob("*") if path.is_file()]
        kept = [path for path in files if "__pycache__" not in path.parts]
        missing = {Path(inside, path.relative_to(REPOSITORY / folder)) for path in kept} - names
        assert not missing


def test_nothing_of_the_clone_is_used(installed: Installed) -> None:
    code = "import convtrain, sys; print(convtrain.__file__, *sys.path, sep='\\n')"
    paths = [Path(line) for line in installed("python", "-c", code).splitlines()]
    assert installed.programs.parent in paths[0].parents
    assert REPOSITORY not in paths


def test_every_verb_works(installed: Installed) -> None:
    run, other = "logs/runs/mine/one", "logs/runs/mine/two"
    installed("convtrain", "train", *QUICK, "model=functional", f"hydra.run.dir={run}")
    installed("python", "-m", "convtrain", "train", *QUICK, "model=nn", f"hydra.run.dir={other}")
    assert installed.trained == 2
    assert "mine" in installed("convtrain", "list", "experiment")
    commands = {
        "check": ["--build", *QUICK], "compare": [run, other], "copy": ["network/resnet8"],
        "diff": [run, other], "export": [run], "gradients": [run], "layers": ["ReLU"],
        "list": [], "rerun": [run], "summary": QUICK, "evaluate": [run], "report": [run],
        "code": [run],
    }  # fmt: skip
    done_elsewhere = {"new", "predict", "sweep", "train"}
    assert commands.keys() | done_elsewhere >= verbs_by_name().keys()
    for verb, arguments in commands.items():
        assert installed("convtrain", verb, *arguments), verb
    installed("convtrain", "train", f"resume={run}", "trainer.max_epochs=2")
    assert installed("convtrain", "--version").startswith("convtrain ")


LAUNCHERS: dict[str, list[str]] = {
    "basic": [],
    "joblib": ["hydra.launcher.n_jobs=2"],
    "submitit_local": [],
}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_sweep_trains_all_its_jobs(installed: Installed, launcher: str) -> None:
    (installed.folder / "random.py").unlink()  # joblib and submitit type python -m, which finds it
    installed(
        "convtrain", "train", "-m", *QUICK, f"hydra/launcher={launcher}", "seed=1,2",
        *LAUNCHERS[launcher], "recorder=off", "hydra.sweep.dir=sweep",
    )  # fmt: skip
    assert len(list((installed.folder / "sweep").glob("seed-*/result.json"))) == 2
    assert installed.trained == (1 if launcher == "basic" else 2)
    assert "seed" in installed("convtrain", "sweep", "sweep")


WRITE_IMAGES = """
import sys
from pathlib import Path
from PIL import Image
from convtrain.assembly import make_data
from convtrain.command.job_config import config_of
from convtrain.run.directory import Run

test = make_data(config_of(Run(sys.argv[1]))).splits.test
for index, (pixels, label) in enumerate(zip(test.pixels.numpy(), test.labels.tolist())):
    path = Path("images", str(label), f"{index:04}.png")
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels[0]).save(path)
"""
COMPARE_CODE = """
import sys
import torch
import convtrain
import written

trained = convtrain.load("run", style=sys.argv[1], device="cpu")
model = written.ConvNet().eval()
model.load_state_dict(torch.load("weights.pt"))
pixels = torch.randint(0, 256, (9, *trained.preprocessing.shape), dtype=torch.uint8)
images = trained.preprocessing.normalise(pixels)
plain = trained.model.to(memory_format=torch.contiguous_format)  # as the file computes
assert torch.equal(model(images), plain(images))
torch.testing.assert_close(model(images), trained.logits(pixels), rtol=1e-4, atol=1e-4)
print("the same bits")
"""


def test_a_run_is_used_in_a_folder_that_is_not_the_clone(installed: Installed) -> None:
    """It is reported and evaluated, it predicts, and it leaves as files and as code."""
    (installed.folder / "random.py").unlink()  # which python -c would import
    trained = ("trainer.max_epochs=3", "callbacks.progress_bar=false")
    installed("convtrain", "train", *trained, "hydra.run.dir=run")
    result = json.loads((installed.folder / "run/result.json").read_text())
    (installed.folder / "run/report.html").unlink()
    installed("convtrain", "report", "run")
    assert (installed.folder / "run/report.html").stat().st_size < 3_000_000

    assert "to the last bit" in installed("convtrain", "evaluate", "run")
    installed("python", "-c", WRITE_IMAGES, "run")
    installed("convtrain", "predict", "run", "images", "--csv", "found.csv")
    with (installed.folder / "found.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    right = sum(Path(row["path"]).parent.name == row["label"] for row in rows)
    assert right / len(rows) == pytest.approx(result["test/acc"], abs=1e-6)
    elsewhere = ("data=image_folder", "data.root=images", "--split", "all")
    found = installed("convtrain", "evaluate", "run", *elsewhere, "--name", "elsewhere")
    assert f"{result['test/acc']:.2%}" in found

    for format in ("safetensors", "pt2", "onnx", "python"):
        said = installed("convtrain", "export", "run", "--format", format)
        assert "Read back" in said, format
    for style in ("nn", "functional"):
        code = installed("convtrain", "code", "run", f"model={style}", "--weights", "weights.pt")
        (installed.folder / "written.py").write_text(code)
        assert "the same bits" in installed("python", "-c", COMPARE_CODE, style), style


def test_two_processes_train_together(installed: Installed) -> None:
    installed("convtrain", "train", *QUICK, "trainer=ddp_cpu", "trainer.max_epochs=1")
    assert installed.trained == 2


def test_torchrun_starts_the_installed_command(installed: Installed) -> None:
    torchrun = "import sys; del sys.path[0]; from torch.distributed.run import main; main()"
    ranks = ("--nproc-per-node=2", "--standalone", "-m", "convtrain")
    installed("python", "-c", torchrun, *ranks, "train", *QUICK, "trainer=cpu")
    assert installed.trained == 2


def test_a_new_project_trains_and_its_own_tests_pass(installed: Installed) -> None:
    """Each part of it is its own: dataset, layer, loss and callback."""
    installed("convtrain", "new", "project")
    installed.folder /= "project"
    installed("convtrain", "train", "experiment=mine", "hydra.run.dir=one")
    installed("convtrain", "train", "experiment=mine", "model=nn", "hydra.run.dir=two")
    one, two = (json.loads((installed.folder / run / "result.json").read_text()) for run in
                ("one", "two"))  # fmt: skip
    assert one["test/acc"] == two["test/acc"] > 0.9
    assert one["callback_metrics"]["weight_norm"] > 0
    installed("convtrain", "train", "resume=one", "trainer.max_epochs=6")
    assert "the same bits" in installed("convtrain", "rerun", "two")
    quick = ("experiment=mine", "trainer.max_epochs=1", "data.count=90")
    installed("convtrain", "train", *quick, "trainer=ddp_cpu")
    joblib = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
    installed("convtrain", "train", "-m", *quick, *joblib, "optimizer.lr=0.1,0.01")
    python = f"PYTHON={installed.programs / 'python'}"
    subprocess.run(["make", "test", python], cwd=installed.folder, check=True)


REST = '''"""Parts that the template lacks: optimiser, schedule, transform, metric, logger."""

import os
import signal
from pathlib import Path

import torch
from pytorch_lightning import Callback
from pytorch_lightning.loggers import Logger
from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric


class Signs(Optimizer):
    def __init__(self, params, lr: float, beta: float = 0.9):
        super().__init__(params, {"lr": lr, "beta": beta})

    @torch.no_grad()
    def step(self, closure=None):
        with torch.enable_grad():
            loss = closure()
        for group in self.param_groups:
            for p in (p for p in group["params"] if p.grad is not None):
                mean = self.state[p].setdefault("mean", torch.zeros_like(p))
                p.sub_(group["lr"] * mean.lerp_(p.grad, 1 - group["beta"]).sign())
        return loss


class Halves(LRScheduler):
    def __init__(self, optimizer, every: int):
        self.every = every
        super().__init__(optimizer)

    def get_lr(self):
        falls = self.last_epoch > 0 and self.last_epoch % self.every == 0
        return [group["lr"] * (0.5 if falls else 1) for group in self.optimizer.param_groups]


class Speckle(nn.Module):
    def __init__(self, levels: int):
        super().__init__()
        self.levels = levels

    def forward(self, image):
        return image ^ torch.randint(self.levels, image.shape, dtype=torch.uint8)


class Confidence(Metric):
    def __init__(self):
        super().__init__()
        self.add_state("sum", torch.tensor(0.0, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.tensor(0), dist_reduce_fx="sum")

    def update(self, preds, target):
        self.sum += preds.max(1).values.double().sum()
        self.count += len(preds)

    def compute(self):
        return self.sum / self.count


class Steps(Logger):
    name = version = ""

    def __init__(self, save_dir: str):
        super().__init__()
        self.path = Path(save_dir, "steps.txt")

    def log_hyperparams(self, params):
        pass

    def log_metrics(self, metrics, step=None):
        with self.path.open("a") as file:
            print(step, *metrics, file=file)


class Killer(Callback):
    def on_train_batch_end(self, trainer, *args):
        if str(trainer.global_step) == os.environ.get("KILL_AT"):
            os.kill(os.getpid(), signal.SIGKILL)
'''
REST_CHOSEN = """
  - override /optimizer: custom
  - override /scheduler: custom
  - override /logger: custom

optimizer:
  _target_: mypackage.rest.Signs
  lr: 0.01
scheduler:
  _target_: mypackage.rest.Halves
  every: 20
  interval: step
augment:
  transforms: [{mypackage.rest.Speckle: {levels: 4}}, RandomHorizontalFlip]
metrics:
  confidence:
    _target_: mypackage.rest.Confidence
logger:
  _target_: mypackage.rest.Steps
"""


def test_everything_in_a_strangers_project_is_their_own(installed: Installed) -> None:
    """All ten kinds of parts train, sweep, and end with the same bits after a kill."""
    installed("convtrain", "new", "own/mypackage")
    installed.folder /= "own/mypackage"
    (installed.folder / "mypackage" / "rest.py").write_text(REST)
    experiment = installed.folder / "configs" / "experiment" / "mine.yaml"
    shown = experiment.read_text()
    chosen = shown.replace("override /loss: custom\n", f"override /loss: custom{REST_CHOSEN}")
    assert chosen != shown
    callback = "    - _target_: mypackage.callback.WeightNorm\n"
    experiment.write_text(
        chosen.replace(callback, f"{callback}    - _target_: mypackage.rest.Killer\n")
    )
    quick = ("experiment=mine", "data.count=300", "trainer.max_epochs=3", "data.batch_size=32")
    installed("convtrain", "check", "--build", *quick)
    for style in ("functional", "nn"):
        typed = ("convtrain", "train", *quick, f"model={style}")
        installed(*typed, f"hydra.run.dir={style}")
        killed = installed.run(*typed, "hydra.run.dir=killed", KILL_AT="13")
        assert killed.returncode == -signal.SIGKILL
        installed("convtrain", "train", "resume=killed")
        assert compare_bits(installed.folder / style, installed.folder / "killed").is_same
        shutil.rmtree(installed.folder / "killed")
    assert compare_bits(installed.folder / "functional", installed.folder / "nn").is_same
    result = json.loads((installed.folder / "nn" / "result.json").read_text())
    assert 0 < result["val/confidence"] <= 1
    assert (installed.folder / "nn" / "steps.txt").read_text()
    installed("convtrain", "train", "-m", *quick, "optimizer.lr=0.01,0.003", "seed=1,2",
              "hydra.sweep.dir=sweep", "sweep.metric=val/confidence", "sweep.mode=max")  # fmt: skip
    assert len(list((installed.folder / "sweep").glob("*/result.json"))) == 4


def test_an_editable_install_uses_the_clones_files(tmp_path: Path) -> None:
    clone = copy_sources(tmp_path / "clone")
    editable = make_environment(tmp_path / "environment", "--editable", str(clone))
    installed = Installed(editable, tmp_path / "project")
    (clone / "configs" / "network" / "added.yaml").write_text("# Added.\nname: added\nlayers: []\n")
    listed = installed("convtrain", "list", "network")
    assert "added" in listed
    assert "resnet8" in listed
    installed("convtrain", "train", *QUICK, "trainer=ddp_cpu")
    assert installed.trained == 2
