"""Wrong commands as a shell sees them; ``benchmarks.mistakes`` measures the seconds."""

from pathlib import Path

import pytest

from benchmarks.mistakes import EXAMPLES, REPOSITORY, answer

VERBS = {"train": [str(REPOSITORY / "train.py")], "check": ["-m", "convtrain", "check"]}


@pytest.mark.slow
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("example", EXAMPLES)
def test_a_mistake_is_one_line_and_nothing_is_left_behind(
    example: str, verb: str, tmp_path: Path
) -> None:
    words = [*VERBS[verb], *example.split()]
    _, status, said = answer(words, tmp_path)
    assert status == 2
    (line,) = said.splitlines()
    assert line.startswith(EXAMPLES[example])
    assert line.endswith("[set in: command line]")
    _, status, said = answer(words, tmp_path, HYDRA_FULL_ERROR="1")
    assert status == 2
    assert said.startswith("Traceback")
    assert EXAMPLES[example] in said
    assert not list(tmp_path.iterdir())
