"""Recording keeps within its share of the time, simulated with a clock that costs are put on."""

from dataclasses import dataclass

import pytest

from convtrain.gradients.record import overhead as module
from convtrain.gradients.record.overhead import Budget, Overhead
from convtrain.gradients.record.schedule import DETAILS, Plan, describe_plan
from tests.gradients.harness import EVERY, every


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def perf_counter(self) -> float:
        return self.now


@dataclass
class Case:
    """Seconds of a step without recording, of each detail's sample, and of each flush."""

    plan: Plan
    steps: int = 5000
    step: float = 0.02
    norms: float = 0.0002
    statistics: float = 0.0
    distributions: float = 0.0
    tensors: float = 0.0
    flush: float = 0.0005
    flush_every: int = 50
    share: float = 0.1


STATS, FULL = Plan(statistics=EVERY), Plan(statistics=every(10), distributions=every(50))
DEBUG = Plan(statistics=EVERY, distributions=every(10, 20), tensors=every(100, 3))
CASES = {
    "cheap": Case(Plan()),
    "statistics at every step": Case(STATS, statistics=0.008),
    "statistics that no step can afford": Case(STATS, statistics=10.0, steps=500),
    "norms alone are too dear": Case(Plan(), norms=0.02),
    "flushes of short epochs": Case(Plan(), flush=0.02, flush_every=3),
    "flushes at every 10th row": Case(STATS, statistics=0.01, flush=0.03, flush_every=10),
    "full": Case(FULL, statistics=0.02, distributions=0.5),
    "debug": Case(DEBUG, statistics=0.01, distributions=0.1, tensors=2.0),
    "a strict share": Case(STATS, statistics=0.001, share=0.01, steps=20_000),
    "a share that is used": Case(STATS, statistics=0.008, share=0.3),
    "few steps that are slow": Case(STATS, statistics=0.5, step=1.0, steps=200, flush_every=10),
}


def run(case: Case, monkeypatch: pytest.MonkeyPatch) -> tuple[Overhead, list[Plan]]:
    """Return the stopwatch, and the plans one after the other."""
    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    overhead, plan, plans, rows = Overhead(), case.plan, [case.plan], 0
    budget = Budget(case.share, overhead, 0, case.steps)
    for step in range(1, case.steps + 1):
        clock.now += case.step
        due = plan.due(step)
        with overhead:
            for detail in due:
                with overhead.of(detail):
                    clock.now += getattr(case, detail)
        rows += bool(due)
        if rows == case.flush_every:
            with overhead:
                clock.now += case.flush
            rows = 0
            plan = budget.fit(plan, step)
            if plan != plans[-1]:
                plans.append(plan)
    return overhead, plans


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_the_share_is_kept_and_used(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    overhead, plans = run(case, monkeypatch)
    dearest = max(getattr(case, name) for name in DETAILS) * (case.flush_every + 1)
    if case.statistics < 1:  # else one sample alone takes longer than is allowed
        assert overhead.share() <= 1.2 * case.share
    else:
        assert overhead.seconds <= 1.2 * dearest
    assert len(plans) <= 6, "the user is told once or twice"
    if len(plans) > 1 and case.statistics < 1:
        assert overhead.share() >= 0.5 * case.share, "what is allowed is used"
    for plan in plans:
        assert all(s.every_n_steps <= case.steps for s in plan.samplings.values())


def test_norms_do_not_pay_for_what_other_details_took(monkeypatch: pytest.MonkeyPatch) -> None:
    case = Case(STATS, statistics=0.5, steps=500)
    _, plans = run(case, monkeypatch)
    assert plans[-1] == Plan(statistics=None)


def test_what_is_not_too_dear_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plans = run(CASES["cheap"], monkeypatch)
    assert plans == [Plan()]


def test_never_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    _, plans = run(CASES["statistics that no step can afford"], monkeypatch)
    assert describe_plan(plans[-1], plans[0]).endswith("statistics never")


def test_a_second_of_recording_is_always_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    overhead, plans = run(Case(STATS, steps=30, statistics=0.03, flush_every=5), monkeypatch)
    assert len(plans) == 1
    assert overhead.share() > 0.5
