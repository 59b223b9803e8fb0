"""``python -m convtrain``: what is the same for all verbs; the catalogue; a network in numbers."""

import re
import subprocess

import pytest
import yaml

from convtrain.__main__ import main
from convtrain.layers import BY_NAME
from convtrain.network.catalogue import describe_all
from convtrain.network.resolve import resolve_network
from convtrain.network.summary import summarize, totals
from tests.conftest import REPOSITORY

DESCRIBED = {described.name: described for described in describe_all()}


def test_the_catalogue_lists_every_layer(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers"]) == 0
    printed = capsys.readouterr().out
    assert f"{len(BY_NAME)} layers" in printed
    assert list(DESCRIBED) == list(BY_NAME)
    for name in BY_NAME:
        assert f" {name} " in printed, name


def test_a_layer_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["layers", "conv2d"]) == 0
    printed = capsys.readouterr().out
    for part in ("- Conv2d: {out_channels: 16, kernel_size: 3}", "in_channels (inferred)"):
        assert part in printed
    assert "F.conv2d(input, weight, bias, stride, padding, dilation, groups, " in printed
    assert "padding_mode=zeros" in printed


def test_a_layer_of_ones_own_is_shown_in_full(capsys: pytest.CaptureFixture[str]) -> None:
    name = "tests.network.own.Standardised"
    assert main(["layers", name, "trust=[tests]"]) == 0
    printed = capsys.readouterr().out
    for part in ("gain=1.0", "in_channels (inferred)", "out_channels (must be given)"):
        assert part in printed
    assert f"- {name}: {{out_channels: 16, kernel_size: 3}}" in printed
    assert main(["layers", name]) == 2
    assert "add 'trust=[tests]'" in capsys.readouterr().err


@pytest.mark.parametrize("name", list(BY_NAME))
def test_every_layer_has_an_example_in_yaml(name: str) -> None:
    (item,) = yaml.safe_load(DESCRIBED[name].example)
    assert item == name or next(iter(item)) == name


@pytest.mark.parametrize("name", ["Conv2d", "Residual", "Concat", "Dense", "Permute", "LayerScale"])
def test_the_example_is_a_network(name: str) -> None:
    resolve_network(yaml.safe_load(DESCRIBED[name].example), (16, 8, 8))


def test_a_summary_counts_what_one_can_count_by_hand() -> None:
    layers = [
        {"Conv2d": {"out_channels": 4, "kernel_size": 3, "padding": 1, "bias": False}},
        {"Residual": [{"Conv2d": {"out_channels": 4, "kernel_size": 1, "groups": 2}}, "ReLU"]},
        "Flatten",
        {"Linear": {"out_features": 10}},
    ]
    rows = summarize(resolve_network(layers, (3, 5, 5)))
    assert [(row.path, row.parameters, row.multiply_adds) for row in rows] == [
        ("conv2d_1", 4 * 3 * 9, 25 * 4 * 3 * 9),
        ("residual_1.body.conv2d_1", 4 * 2 + 4, 25 * 4 * 2),
        ("residual_1.body.relu_1", 0, 0),
        ("flatten_1", 0, 0),
        ("linear_1", 100 * 10 + 10, 100 * 10),
    ]
    assert rows[-1].output_shape == (10,)
    assert totals(rows) == (108 + 12 + 1010, 2700 + 200 + 1000)


def test_a_summary_is_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["summary", "network=resnet18", "data=cifar10"]) == 0
    printed = capsys.readouterr().out
    assert "resnet18 for one image of 3 x 32 x 32" in printed
    assert "stage_3.basic_1.residual_1.shortcut.conv_1.conv2d_1" in printed
    assert "11,181,642" in printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["layers", "Conv2b"], "did you mean Conv2d?"),
        (["summary", "network=resnet51"], "did you mean resnet50?"),
        (["summary", "optimizer.lr=-1"], "optimizer.lr=-1"),
        (["summary", "network=vgg16_bn"], "max_pool2d_1 (MaxPool2d): input (N, 512, 1, 1)"),
        (["summary", "model=torchvision"], "choose model=functional"),
        (["summary", "model=nn,functional"], "model=nn,functional"),
    ],
    ids=["layer", "network", "value", "image too small", "not declared", "sweep"],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.err.count("\n") == 1
    assert not printed.out


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("check --bild", "--bild: no such option; did you mean --build?"),
        ("check model=nn --epochs 3", "--epochs: no such option; type trainer.max_epochs=VALUE"),
        ("check seed=x --build", "seed=x: must be an integer"),
        ("check --config-dir nowhere", "--config-dir=nowhere: no such folder"),
        ("summary -m seed=1,2", "-m: a summary shows one network; leave it out"),
        ("summary --csv x", "--csv: no such option; type logger.csv=VALUE"),
        ("chek", "VERB: invalid choice: 'chek' (choose from "),
        ("", "python -m convtrain: type what to do: check, "),
        ("export", "the following arguments are required: RUN; python -m convtrain export --help"),
        ("export RUN --chekpoint best", "--chekpoint: export takes no such argument; did you mean"),
        ("diff A B C", "C: diff takes no such argument"),
        ("gradients RUN --table nope", "--table: invalid choice: 'nope'"),
    ],
)
def test_a_wrong_command_is_one_line(
    capsys: pytest.CaptureFixture[str], typed: str, says: str
) -> None:
    assert main(typed.split()) == 2
    printed = capsys.readouterr()
    assert printed.err.startswith(says)
    assert printed.err.count("\n") == 1
    assert not printed.out


def test_versions_and_options_on_both_sides(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("convtrain ")
    assert main(["check", "model=nn", "-m", "seed=1,2"]) == 0
    assert capsys.readouterr().out.count("ok: ") == 2
    assert main(["summary", "network=lenet", "--config-dir", "configs", "data=mnist"]) == 0
    assert "lenet for one image of 1 x 28 x 28" in capsys.readouterr().out


FILES = sorted(REPOSITORY.glob("convtrain/verbs/[!_]*.py"))


def test_every_file_is_a_verb_with_help_and_an_example(python: str) -> None:
    """All in one process, which imports the verbs and no torch."""
    code = (
        "import sys, convtrain.__main__ as m\n"
        "for verb in sys.argv[1:]:\n"
        "    print(f'=== {verb}')\n"
        "    try: m.main([verb, '--help'] if verb != 'all' else ['--help'])\n"
        "    except SystemExit as left: assert left.code in (0, None), verb\n"
        "assert 'torch' not in sys.modules"
    )
    verbs = [path.stem for path in FILES]
    done = subprocess.run([python, "-c", code, "all", *verbs], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    listing, *helps = done.stdout.split("=== ")[1:]
    listed = re.findall(r"^  (\w+) +(\S.*)", listing, re.MULTILINE)
    assert [name for name, _ in listed] == verbs
    for (name, line), shown in zip(listed, helps, strict=True):
        assert re.fullmatch(r"[A-Z].*\.", line), name
        script = "python train.py" if name == "train" else f"python -m convtrain {name}"
        assert re.search(rf"^(Example: )?{script} \S", shown, re.MULTILINE), name


def test_only_the_verb_that_was_typed_is_imported(python: str) -> None:
    code = (
        "import sys, convtrain.__main__ as m; m.main(['--version']); m.main(['sweep', 'nowhere'])\n"
        "print([n for n in sys.modules if n.startswith('convtrain.verbs.')])"
    )
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "['convtrain.verbs.sweep']"


def test_train_as_a_verb_is_train_py(python: str) -> None:
    """As far as it answers without training; both call one function."""

    def call(*typed: str) -> "subprocess.CompletedProcess[str]":
        command = [python, "-m", "convtrain", "train", *typed]
        return subprocess.run(command, capture_output=True, text=True)

    config = yaml.safe_load(call("model=nn", "optimizer.lr=0.03", "--cfg", "job").stdout)
    assert (config["model"]["style"], config["optimizer"]["lr"]) == ("nn", 0.03)
    wrong = call("optimizer.lr=-1")
    assert (wrong.returncode, wrong.stderr[:15]) == (2, "optimizer.lr=-1")


def test_a_recurrent_layer_shows_the_arguments_it_hands_on(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["layers", "LSTM"]) == 0
    printed = capsys.readouterr().out
    for part in ("hidden_size (must be given)", "num_layers=1", "bidirectional=false"):
        assert part in printed
    assert " mode" not in printed.split("arguments")[1]


UNKIND = {
    "an empty file name": (["export", "RUN", "--out", ""], "out: is empty"),
    "an empty path": (["predict", "RUN", ""], "paths: is empty"),
    "rows over an image": (["predict", "RUN", "--csv", "a.png", "b.png"], "--csv a.png: is the na"),
}


@pytest.mark.parametrize(("typed", "said"), list(UNKIND.values()), ids=list(UNKIND))
def test_what_is_empty_or_would_be_lost_is_refused(
    capsys: pytest.CaptureFixture[str], typed: list[str], said: str
) -> None:
    assert main(typed) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
