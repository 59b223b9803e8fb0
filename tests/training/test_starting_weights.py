"""``model.weights``: of torchvision, of a file and of a run, in both styles, and what is said."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Tensor, nn

import convtrain
from convtrain import pipeline
from convtrain.__main__ import run_verb
from convtrain.assembly import make_model
from convtrain.command.command_line import CommandLine
from convtrain.command.configure import configure_command
from convtrain.config.data_sections import AnySizes
from convtrain.config.schema import Config
from convtrain.errors import ConfigError, CorruptDataError, MissingDataError
from convtrain.forecast import forecast
from convtrain.models.published import NORMALISE_THEMSELVES, expected_pixels
from convtrain.models.weights import fit
from convtrain.process.lock import locked
from convtrain.training.checkpoint_file import load_checkpoint
from convtrain.training.starting_weights import (
    StartingWeights,
    read_starting_weights,
    refuse_changed,
)
from convtrain.training.weight_files import downloaded, read_tensors
from tests.conftest import Train, compose, slow_but
from tests.network.known import CLASSES, NETWORKS, fill, known
from tests.training.forged import Payload
from tests.training.test_resume import SMALL, Whole

STYLES = ("nn", "functional")
IMAGES = ("data=synthetic", "data.shape=[3,64,64]", "data.train_size=2000")


def filled(name: str) -> nn.Module:
    """Return torchvision's own model, with numbers in place of trained weights."""
    with torch.device("meta"):  # draws no weights; they are filled below
        model = known(name)
    model = model.to_empty(device="cpu").eval()
    for buffer in model.buffers():
        buffer.zero_()
    fill(model)
    return model


def logits(model: nn.Module, channels: int = 3) -> Tensor:
    images = torch.randn(2, channels, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(images)


def begun(config: Config) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model as a training begins with it, and what provenance.json says of it."""
    torch.manual_seed(config.seed)
    model = make_model(config)
    found = read_starting_weights(config, model)
    assert isinstance(found, StartingWeights)
    return model, found.load(model, config, None)


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty folder of downloaded weights; nothing can be downloaded."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))

    def no_network(*arguments: object, **options: object) -> None:
        raise OSError("Name or service not known")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    return tmp_path / "torch" / "hub" / "checkpoints"


def put(model: nn.Module, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> Path:
    """Put a file of weights where torchvision's would be, under the hash of its own content."""
    state = model.state_dict()
    if name == "googlenet":  # as in torchvision's file
        state["aux1.conv.conv.weight"] = torch.ones(2)
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(state, folder / "new")
    digits = hashlib.sha256((folder / "new").read_bytes()).hexdigest()[:8]
    path = (folder / "new").rename(folder / f"{name}-{digits}.pth")
    weights = torchvision.models.get_model_weights(name).DEFAULT
    monkeypatch.setattr(type(weights), "url", f"https://example.org/{path.name}")
    return path


@pytest.mark.parametrize("name", slow_but(NETWORKS[1:], "resnet18"))
def test_published_weights_give_torchvisions_own_logits_in_both_styles(
    name: str, hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = filled(name)
    file = put(theirs, hub, monkeypatch, name)
    expected = logits(theirs)
    for model in (*STYLES, "torchvision"):
        chosen = f"model.name={name}" if model == "torchvision" else f"network={name}"
        overrides = (
            f"model={model}",
            chosen,
            "model.weights=DEFAULT",
            f"data.num_classes={CLASSES}",
        )
        ours, said = begun(compose(*IMAGES, *overrides))
        assert torch.equal(logits(ours), expected)
        assert said["sha256"][:8] in file.name
        assert said["loaded"] == len(theirs.state_dict())
        assert said["replaced"] == []
        assert said["left_over"] == (name == "googlenet")


def test_the_head_of_other_classes_keeps_its_own_initial_weights(tmp_path: Path) -> None:
    theirs = filled("resnet18")
    torch.save({"state_dict": {f"module.{k}": v for k, v in theirs.state_dict().items()}},
               tmp_path / "trained.pth")  # fmt: skip
    theirs.fc = nn.Identity()
    features = logits(theirs)
    overrides = (*IMAGES, "network=resnet18", "data.num_classes=7")
    torch.manual_seed(1)
    fresh = make_model(compose(*overrides)).state_dict()
    head = fresh["linear_1.weight"], fresh["linear_1.bias"]
    for style in STYLES:
        config = compose(*overrides, f"model={style}", f"model.weights={tmp_path / 'trained.pth'}")
        model, said = begun(config)
        assert torch.equal(logits(model), nn.functional.linear(features, *head))
        assert said["summary"] == [
            f"model.weights={tmp_path / 'trained.pth'}: loaded 120 tensors of trained.pth; "
            f"replaced linear_1.weight, linear_1.bias (7 classes in place of 1000); left over 0"
        ]


# --- files ----------------------------------------------------------------------------------------


def small() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 5))


@pytest.mark.parametrize("prefix", ["", "module.", "model._orig_mod.", "net.", "teacher.body."])
@pytest.mark.parametrize("key", [None, "state_dict", "model", "model_state_dict"])
def test_files_of_every_kind_hold_the_same_tensors(
    key: str | None, prefix: str, tmp_path: Path
) -> None:
    state = {prefix + name: tensor for name, tensor in small().state_dict().items()}
    torch.save(state if key is None else {key: state, "epoch": 3}, tmp_path / "weights.pth")
    save_file(state, tmp_path / "weights.safetensors")
    for file in ("weights.pth", "weights.safetensors"):
        found = fit(small(), read_tensors(tmp_path / file), "here")
        assert found.tensors.keys() == small().state_dict().keys()
        assert all(torch.equal(found.tensors[k], v) for k, v in small().state_dict().items())
        assert (found.adapted, found.replaced, found.left_over) == ([], [], [])


def test_a_child_called_model_keeps_its_name() -> None:
    own = nn.ModuleDict({"model": small()})
    found = fit(own, {f"module.{k}": v for k, v in own.state_dict().items()}, "here")
    assert found.tensors.keys() == own.state_dict().keys()


def test_of_several_prefixes_that_of_a_wrapper_is_taken() -> None:
    state = small().state_dict()
    both = {f"ema.{k}": v + 1 for k, v in state.items()} | {
        f"model.{k}": v for k, v in state.items()
    }
    found = fit(small(), both, "x")
    assert all(torch.equal(found.tensors[k], v) for k, v in state.items())
    assert found.left_over == [f"ema.{k}" for k in state]
    unclear = {k.replace("model.", "student."): v for k, v in both.items()}
    with pytest.raises(ConfigError, match=r"with each of the prefixes ema\., student\.; save"):
        fit(small(), unclear, "x")


def test_numbers_of_another_kind_are_no_weights() -> None:
    """The rounded weights of a quantized file would train; a precision becomes the model's."""
    state = small().state_dict()
    for value, kind in {
        (state["0.weight"] * 100).to(torch.int8): "integer",
        state["0.weight"].to_sparse(): "sparse",
        state["0.weight"].to(torch.complex64): "complex",
    }.items():
        with pytest.raises(ConfigError, match=f"0.weight is {kind} there and floating point in"):
            fit(small(), {**state, "0.weight": value}, "x")
    for dtype in (torch.float64, torch.bfloat16, torch.float8_e4m3fn):
        found = fit(small(), {**state, "0.bias": state["0.bias"].to(dtype)}, "x")
        assert torch.equal(found.tensors["0.bias"], state["0.bias"].to(dtype).float())
    with pytest.raises(ConfigError, match=r"not finite in 0.bias"):
        fit(small(), {**state, "0.bias": torch.full((4,), 1e300, dtype=torch.float64)}, "x")


def test_what_does_not_fit_is_named_with_both_shapes() -> None:
    state = small().state_dict()
    wide = {**state, "1.weight": torch.ones(7), "3.weight": torch.ones(5, 9)}
    with pytest.raises(ConfigError) as error:
        fit(small(), wide, "model.weights=x: x")
    assert str(error.value) == (
        "model.weights=x: x does not fit the model: 1.weight is (7,) there and (4,) in the model, "
        "3.weight is (5, 9) there and (5, 16) in the model"
    )
    other = {
        k.replace("1.", "norm.") if k in ("1.weight", "1.bias") else k: v for k, v in state.items()
    }
    with pytest.raises(ConfigError, match=r"x lacks 1.weight, 1.bias, which the model has; it has "
                       r"norm.weight, norm.bias instead"):  # fmt: skip
        fit(small(), other, "x")
    with pytest.raises(ConfigError, match=r"holds values that are not finite in 0.bias"):
        fit(small(), {**state, "0.bias": torch.full((4,), torch.nan)}, "x")
    old = {k: v for k, v in state.items() if not k.endswith("num_batches_tracked")}
    assert fit(small(), {**old, "aux": torch.ones(1)}, "x").left_over == ["aux"]
    headless = {k: v for k, v in state.items() if not k.startswith("3.")}
    assert fit(small(), headless, "x").replaced == ["3.weight", "3.bias"]


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_the_first_convolution_is_adapted_to_other_channels(channels: int) -> None:
    """A grey image gives what it gives in three channels; so do colours that are repeated."""
    theirs, ours = small(), small()
    ours[0] = nn.Conv2d(channels, 4, 3)
    found = fit(ours, theirs.state_dict(), "here")
    ours.load_state_dict(found.tensors)
    assert found.adapted == ["0.weight"]
    images = torch.rand(2, 1, 4, 4)
    wide = images.expand(-1, channels, -1, -1)
    expected = theirs[0](images.expand(-1, 3, -1, -1))
    scale = theirs.get_parameter("0.weight")[:, torch.arange(channels) % 3].sum(1) * 3 / channels
    if channels != 4:
        torch.testing.assert_close(ours[0](wide), expected)
        scale = theirs.get_parameter("0.weight").sum(1)
    torch.testing.assert_close(found.tensors["0.weight"].sum(1), scale)


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    mark = tmp_path / "executed"
    for name, content in {
        "payload": {"state_dict": {"0.weight": Payload(mark)}},
        "whole model": small(),
        "list": [torch.ones(1)],
        "empty": {"epoch": 1},
    }.items():
        torch.save(content, tmp_path / name)
    (tmp_path / "junk").write_bytes(b"hello")
    (tmp_path / "noise").write_bytes(bytes(range(1, 255)))
    (tmp_path / "junk.safetensors").write_bytes(b"hello")
    for path in tmp_path.iterdir():
        with pytest.raises(CorruptDataError, match=str(path)) as caught:
            read_tensors(path)
        assert "weights_only" not in str(caught.value)  # torch advises to execute the file
    assert not mark.exists()


class Distilled(nn.Module):
    """A head of several layers, as timm names it."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Linear(3, 4)
        self.head = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, classes))
        self.pretrained_cfg = {"classifier": ("head.1",)}


def test_only_the_layer_of_the_logits_is_replaced() -> None:
    found = fit(Distilled(2), Distilled(9).state_dict(), "here")
    assert found.replaced == ["head.1.weight", "head.1.bias"]
    assert "head.0.weight" in found.tensors
    tied = nn.utils.parametrizations.weight_norm(nn.Linear(3, 4))
    other = nn.utils.parametrizations.weight_norm(nn.Linear(3, 5))
    assert len(fit(tied, other.state_dict(), "here").replaced) == 3


# --- torchvision's --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NORMALISE_THEMSELVES)
def test_a_model_that_normalises_itself_gets_the_numbers_that_come_of_it(name: str) -> None:
    model = torchvision.models.get_model(name, weights=None, init_weights=False)
    model.transform_input = True
    published = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    mean, std = (torch.tensor(v)[:, None, None] for v in (published.mean, published.std))
    levels = torch.rand(1, 3, 4, 4)
    expected = model._transform_input((levels - mean) / std)
    ours = expected_pixels(name, "DEFAULT")
    mean, std = (torch.tensor(ours[k])[:, None, None] for k in ("mean", "std"))
    torch.testing.assert_close((levels - mean) / std, expected)


def test_without_a_network_one_line_says_which_file_goes_where(hub: Path) -> None:
    url = "https://download.pytorch.org/models/resnet18-f37072fd.pth"
    with pytest.raises(MissingDataError) as error:
        downloaded(url, "model.weights=DEFAULT")
    assert str(error.value) == (
        f"model.weights=DEFAULT: resnet18-f37072fd.pth is not in {hub} and cannot be downloaded "
        f"(Name or service not known); get {url} and put it there"
    )
    hub.mkdir(parents=True, exist_ok=True)
    torch.save(small().state_dict(), hub / "resnet18-f37072fd.pth")
    config = compose(*IMAGES, "network=resnet18", "model.weights=DEFAULT")
    with pytest.raises(
        ConfigError, match=r"^model.weights=DEFAULT: .*begins with \w{8}, and its n"
    ):
        begun(config)


def test_one_process_downloads_and_the_others_wait(
    hub: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def download(url: str, path: str, digits: str, progress: bool) -> None:
        calls.append(digits)
        Path(path).write_bytes(b"weights")

    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    found: list[Path] = []
    ask = lambda: found.append(downloaded("https://a.b/net-0123abcd.pth", "x"))  # noqa: E731
    others = [threading.Thread(target=ask) for _ in range(2)]
    with locked(hub):  # as a process that downloads
        for other in others:
            other.start()
        assert not found
    for other in others:
        other.join()
    assert calls == ["0123abcd"]
    assert found == [hub / "net-0123abcd.pth"] * 2


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["network=resnet18", "model.weights=IMAGENET1K_V7"],
         "model.weights=IMAGENET1K_V7: resnet18 has IMAGENET1K_V1, DEFAULT; did you mean "
         "IMAGENET1K_V1?"),
        (["network=resnet18", "model.weights=default"],
         "model.weights=default: resnet18 has IMAGENET1K_V1, DEFAULT; did you mean DEFAULT?"),
        (["model.weights=DEFAULT"],
         "model.weights=DEFAULT: torchvision publishes no weights for convnet; did you mean "
         "convnext_tiny?; type a file or the directory of a run, or choose one of "
         "torchvision.models.list_models()"),
        (["model.weights=gone.pth"],
         "model.weights=gone.pth: there is no such file or run; type DEFAULT, a file or the "
         "directory of a run"),
        (["model.weights=."],
         "model.weights=.: is a folder, and not that of a run; type the directory of a run, or a "
         "file"),
        (["model=custom", "model._target_=torch.nn.Flatten", "model.weights=DEFAULT"],
         "model.weights=DEFAULT: nobody publishes weights of torch.nn.Flatten by name; type a file "
         "or the directory of a run"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_before_any_data_is_read(overrides: list[str], line: str) -> None:
    with pytest.raises(ConfigError) as error:
        compose("data=cifar10", "data.root=nowhere", *overrides)
    assert str(error.value) == line


# --- a run's --------------------------------------------------------------------------------------

TINY = ("data.limit=128", "logger=none", "recorder=off")


def test_a_runs_weights_are_loaded_and_its_head_stays_if_the_classes_are_the_same(
    train: Train, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train(*TINY, name="first")
    first = load_checkpoint(tmp_path / "first/checkpoints/last.ckpt")["state_dict"]
    again = (*TINY, f"model.weights={tmp_path / 'first'}", "optimizer.lr=1e-9")
    caplog.clear()
    train(*again, "model=nn", name="again")
    said = [text for text in caplog.messages if text.startswith("model.weights")]
    assert said == [
        f"model.weights={tmp_path / 'first'}: loaded 20 tensors of last.ckpt; left over 0",
        f"model.weights={tmp_path / 'first'}: data.mean=[0.3053], data.std=[0.376] as the weights "
        f"were trained with",
    ]
    provenance = json.loads((tmp_path / "again/provenance.json").read_text())["weights"]
    file = tmp_path / "first/checkpoints/last.ckpt"
    assert provenance["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()
    assert provenance["summary"] == said
    second = load_checkpoint(tmp_path / "again/checkpoints/last.ckpt")["state_dict"]
    for name in (name for name in first if name.endswith(("weight", "bias"))):
        torch.testing.assert_close(second[name], first[name])
    letters = f"data.classes=[{','.join('abcdefghij')}]"
    model, said_of = begun(compose(*again, letters))
    head = list(model.state_dict())[-2:]
    assert said_of["replaced"] == head == ["linear_1.weight", "linear_1.bias"]
    assert "(classes a, b, c and 7 more in place of 0, 1, 2 and 7 more)" in said_of["summary"][0]
    torch.manual_seed(1)
    fresh = make_model(compose(*TINY)).state_dict()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, fresh[name] if name in head else first[f"model.{name}"])
    config = compose(*again)
    assert forecast(config).weights == said
    refuse_changed(config, {"weights": provenance})
    (tmp_path / "first").rename(tmp_path / "gone")  # what is trained already does not need it
    convtrain.load(tmp_path / "again", device="cpu")
    convtrain.evaluate(tmp_path / "again", device="cpu")
    longer = compose(f"resume={tmp_path / 'again'}", "trainer.max_epochs=2")
    assert pipeline.train(longer, tmp_path / "again")["epochs"] == 2
    now = json.loads((tmp_path / "again/provenance.json").read_text())["weights"]
    assert now == provenance
    gone = tmp_path / "gone"
    for damaged in ("checkpoints/last.ckpt", "config.yaml"):
        (gone / damaged).write_text("{")
        with pytest.raises(ConfigError, match=f"^model.weights={gone}: .*{Path(damaged).name}"):
            begun(compose(*TINY, f"model.weights={gone}"))


@pytest.mark.slow
@pytest.mark.parametrize("style", STYLES)
def test_a_killed_run_resumes_without_the_file(style: str, tmp_path: Path) -> None:
    torch.manual_seed(9)
    fresh = make_model(compose(*SMALL))
    torch.save(fresh.state_dict(), tmp_path / "weights.pth")
    overrides = (*SMALL, f"model={style}", f"model.weights={tmp_path / 'weights.pth'}")
    whole = Whole(tmp_path, overrides)
    resume = whole.check_resumed

    def without_file(name: str) -> bytes:
        (tmp_path / "weights.pth").rename(tmp_path / "gone.pth")
        return resume(name)

    whole.check_resumed = without_file  # type: ignore[method-assign]
    assert whole.check_killed("batch", 9)


# --- the data -------------------------------------------------------------------------------------

IMAGENET = [0.485, 0.456, 0.406]


def test_the_normalisation_follows_the_weights_unless_it_is_set(tmp_path: Path) -> None:
    weights = ("data=cifar10", "network=resnet18", "model.weights=DEFAULT")
    found = compose(*weights).data
    assert (found.mean, found.std) == (IMAGENET, [0.229, 0.224, 0.225])
    assert found.shape == [3, 32, 32]
    assert compose(*weights[:2]).data.mean != IMAGENET
    typed = "data.mean=[0.4914,0.4822,0.4465]"  # as in convtrain's own file
    found = compose(*weights, typed).data
    assert (found.mean, found.std) == ([0.4914, 0.4822, 0.4465], [0.229, 0.224, 0.225])
    files = ("data=custom", "data._target_=torchvision.datasets.FakeData", "data.num_classes=5")
    found = compose(*files, *weights[1:]).data
    assert isinstance(found, AnySizes)
    assert (found.shape, found.store_size, found.mean) == ([3, 224, 224], 256, IMAGENET)
    assert (found.eval_crop, found.interpolation) == (0.875, "bilinear")
    found = compose(*files, "model=torchvision", "model.name=maxvit_t", weights[2],
                    "data.shape=[3,64,64]").data  # fmt: skip
    assert isinstance(found, AnySizes)
    assert (found.shape, found.store_size) == ([3, 64, 64], None)
    assert (found.eval_crop, found.interpolation) == (0.875, "bicubic")
    own_size = compose("data=torchvision", "data.name=EuroSAT", *weights[1:]).data
    assert (own_size.shape, own_size.mean) == ([3, 64, 64], IMAGENET)
    grey = compose("data=mnist", *weights[1:]).data
    assert grey.mean == [pytest.approx(sum(IMAGENET) / 3)]


def test_a_value_in_a_file_of_the_users_own_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = "# @package _global_\ndata:\n  std: [0.3, 0.3, 0.3]\n"
    mine = "defaults: [cifar10, _self_]\nmean: [0.1, 0.1, 0.1]\n"
    for file, text in {"experiment/own.yaml": own, "data/mine.yaml": mine}.items():
        (tmp_path / file).parent.mkdir()
        (tmp_path / file).write_text(text)
    command = CommandLine.parse(
        [f"--config-dir={tmp_path}", "data=mine", "experiment=own", "network=resnet18",
         "model.weights=null,DEFAULT", "-m"]
    )  # fmt: skip
    plain, weighted = (each.data for each in configure_command(command).configs)
    assert (weighted.mean, weighted.std) == ([0.1] * 3, [0.3] * 3)
    assert plain == weighted


def test_a_run_is_repeated_with_the_same_file_or_not_at_all(train: Train, tmp_path: Path) -> None:
    torch.save(make_model(compose(*TINY)).state_dict(), tmp_path / "weights.pth")
    train(*TINY, f"model.weights={tmp_path / 'weights.pth'}")
    run = ["rerun", str(tmp_path / "run"), "--out", str(tmp_path / "again")]
    assert run_verb(run) == 0
    torch.save(make_model(compose(*TINY, "seed=2")).state_dict(), tmp_path / "weights.pth")
    with pytest.raises(ConfigError, match=r"is not what the run began with: its SHA-256 is \w{8}"):
        run_verb([*run[:-1], str(tmp_path / "third")])
