"""Write a sweep's results, and each parameter's effect, as one self-contained HTML file."""

from pathlib import Path

from convtrain.pages import page
from convtrain.run.directory import Run
from convtrain.sweeps.cells import mean_and_std
from convtrain.sweeps.effects import draw_effect
from convtrain.sweeps.results import REPLICATES, Sweep

TEMPLATE = Path(__file__).with_name("page.html.j2")


def write_page(sweep: Sweep) -> None:
    """Write ``results.html`` into the sweep's directory."""
    diagnoses = [job.diagnosis for job in sweep.jobs if job.diagnosis]
    page.write_page(
        sweep.folder / "results.html",
        TEMPLATE,
        sweep=sweep,
        groups=sweep.groups(),
        keys=[key for key in sweep.differing if key not in REPLICATES],
        best=sweep.best(),
        failed=[job for job in sweep.jobs if job.status == "failed"],
        seconds=sum(job.number("wall_time_seconds") or 0 for job in sweep.jobs),
        healthy=diagnoses.count("healthy"),
        diagnosed=len(diagnoses),
        plots=[plot for key in sweep.differing if (plot := draw_effect(sweep, key))],
        spread=mean_and_std,
        reports={
            job.name: path.name for job in sweep.jobs if (path := Run(job.path).report).exists()
        },
    )
