"""Write a sweep's results, and each parameter's effect, as one self-contained HTML file."""

from pathlib import Path

from jinja2 import Environment, StrictUndefined

from convtrain.process.atomic import write_atomically
from convtrain.program import relative
from convtrain.sweeps.cells import mean_and_std
from convtrain.sweeps.plots import draw_effect
from convtrain.sweeps.results import SEED, Sweep
from convtrain.text import format_duration, format_metric

TEMPLATE = Path(__file__).with_name("page.html.j2")


def write_page(sweep: Sweep) -> None:
    """Write ``results.html`` into the sweep's directory."""
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    diagnoses = [job.diagnosis for job in sweep.jobs if job.diagnosis]
    page = environment.from_string(TEMPLATE.read_text(encoding="utf-8")).render(
        title=relative(sweep.folder),
        sweep=sweep,
        groups=sweep.groups(),
        keys=[key for key in sweep.differing if key != SEED],
        best=sweep.best(),
        failed=[job for job in sweep.jobs if job.status == "failed"],
        seconds=sum(job.number("wall_time_seconds") or 0 for job in sweep.jobs),
        healthy=diagnoses.count("healthy"),
        diagnosed=len(diagnoses),
        plots=[svg for key in sweep.differing if (svg := draw_effect(sweep, key))],
        spread=mean_and_std,
        number=format_metric,
        duration=format_duration,
        relative=relative,
    )
    write_atomically(sweep.folder / "results.html", page + "\n")
