"""A sweep as one HTML file that needs no other: a table, and each parameter's effect as a plot."""

import html
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

from convtrain.process.atomic import write_atomically
from convtrain.run.commands import relative
from convtrain.sweeps.results import SEED, Row, Sweep, failures
from convtrain.sweeps.table import duration, number, shown_metrics, spread, standing

STYLE = """
:root { --ink: #1f2430; --soft: #667085; --line: #e4e7ec; --paper: #fff; --page: #f6f7f9;
        --accent: #2f6fdf; --bad: #b42318; --good: #067647; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ef; --soft: #98a2b3; --line: #2b3240;
        --paper: #171b24; --page: #0f131a; --accent: #7aa7ff; --bad: #ff8a7a; --good: #6ad29b; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
       font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 1180px; margin: 0 auto; padding: 32px 24px 64px; }
h1 { font-size: 22px; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 16px; margin: 36px 0 12px; }
p { margin: 4px 0; color: var(--soft); }
code, .code { font: 12.5px/1.5 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
.code { display: block; overflow-wrap: anywhere; color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(170px, 1fr)); gap: 12px;
         margin-top: 20px; }
.tile, .card { background: var(--paper); border: 1px solid var(--line); border-radius: 10px; }
.tile { padding: 12px 16px; } .tile b { display: block; font-size: 20px; font-weight: 600; }
.tile span { color: var(--soft); font-size: 13px; }
.card { overflow-x: auto; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(330px, 1fr)); gap: 12px; }
.plots svg { display: block; width: 100%; height: auto; }
.plots .card { padding: 8px; }
@media (prefers-color-scheme: dark) { .plots .card { background: #fff; } }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
td:last-child { min-width: 64px; } td > span { overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; padding: 8px 10px; border-bottom: 1px solid var(--line);
         vertical-align: top; }
th { font-size: 12.5px; color: var(--soft); font-weight: 600; white-space: nowrap; }
tr:last-child > td { border-bottom: 0; } td.n, th.n { text-align: right; white-space: nowrap;
         font-variant-numeric: tabular-nums; }
tr.first td { font-weight: 600; } tr.first td .code, tr.first td .soft { font-weight: 400; }
tr.more td { border-bottom: 1px solid var(--line); padding-top: 0; } tr.top td { border-bottom: 0; }
.bad { color: var(--bad); } .good { color: var(--good); } .soft { color: var(--soft); }
"""


def write_page(sweep: Sweep) -> Path:
    """Write ``results.html`` into the sweep's directory."""
    path = sweep.folder / "results.html"
    write_atomically(path, "".join(_page(sweep)))
    return path


def _page(sweep: Sweep) -> Iterator[str]:
    title = html.escape(relative(sweep.folder))
    yield '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>{title}</title><style>{STYLE}</style></head><body><main>"
    yield f"<h1>{title}</h1><p>{html.escape(standing(sweep))}</p>"
    if sweep.command:
        yield f'<span class="code">{html.escape(sweep.command)}</span>'
    yield from _tiles(sweep)
    yield from _plots(sweep)
    yield f"<h2>Settings, the best {html.escape(sweep.metric)} first</h2>"
    yield from _table(sweep)
    yield from _failed(sweep)
    yield "</main></body></html>\n"


def _tiles(sweep: Sweep) -> Iterator[str]:
    best, rows = sweep.best(), sweep.rows()
    yield '<div class="tiles">'
    if best is not None:
        mean = rows[0].mean(sweep.metric)
        assert mean is not None
        yield _tile(spread(sweep.metric, mean, rows[0].deviation(sweep.metric)),
                    f"{sweep.metric} of the best setting")  # fmt: skip
        yield _tile(number(sweep.metric, best.result[sweep.metric]),
                    f"{sweep.metric} of the best job, {best.name}")  # fmt: skip
    times = [job.result["wall_time_seconds"] for job in sweep.jobs if job.result]
    if times:
        yield _tile(duration(sum(times)), "training time of all jobs")
    healthy = sum(job.verdict == "healthy" for job in sweep.jobs)
    if any(job.verdict for job in sweep.jobs):
        yield _tile(f"{healthy} of {sweep.count('finished')}", "jobs with healthy gradients")
    yield "</div>"


def _tile(value: str, what: str) -> str:
    return f'<div class="tile"><b>{html.escape(value)}</b><span>{html.escape(what)}</span></div>'


def _plots(sweep: Sweep) -> Iterator[str]:
    from convtrain.sweeps.plots import draw_effect

    drawn = [draw_effect(sweep, key) for key in sweep.differing]
    if any(drawn):
        yield '<h2>What each parameter does</h2><div class="plots">'
        yield from (f'<div class="card">{svg}</div>' for svg in drawn if svg)
        yield "</div>"


def _table(sweep: Sweep) -> Iterator[str]:
    shown = [key for key in sweep.differing if key != SEED]
    metrics = shown_metrics(sweep)
    yield '<div class="card"><table><thead><tr><th class="n"></th>'
    yield from (f"<th>{html.escape(key)}</th>" for key in shown)
    yield from (f'<th class="n">{html.escape(metric)}</th>' for metric in metrics)
    yield '<th class="n">time</th><th>gradients</th><th>jobs</th></tr></thead><tbody>'
    for rank, row in enumerate(sweep.rows(), start=1):
        yield f'<tr class="top{" first" if rank == 1 else ""}"><td class="n">{rank}</td>'
        yield from (f"<td>{html.escape(row.settings.get(key, ''))}</td>" for key in shown)
        for metric in metrics:
            told = spread(metric, row.mean(metric), row.deviation(metric))
            yield f'<td class="n">{html.escape(told)}</td>'
        seconds = row.mean("wall_time_seconds")
        yield f'<td class="n">{"" if seconds is None else duration(seconds)}</td>'
        yield f"<td>{_verdict(row)}</td><td>{_jobs(row)}</td></tr>"
        width = len(shown) + len(metrics) + 3
        yield f'<tr class="more"><td></td><td colspan="{width}">'
        yield f'<span class="code">{html.escape(row.command())}</span></td></tr>'
    yield "</tbody></table></div>"


def _verdict(row: Row) -> str:
    kind = "good" if row.verdict == "healthy" else "soft"
    return f'<span class="{kind}">{html.escape(row.verdict)}</span>'


def _jobs(row: Row) -> str:
    links = (
        f'<a href="{quote(job.name)}/" title="{html.escape(relative(job.path))}">'
        f"{html.escape(job.name)}</a>"
        + ("" if job.status == "finished" else f' <span class="bad">{job.status}</span>')
        for job in row.jobs
    )
    return ", ".join(links)


def _failed(sweep: Sweep) -> Iterator[str]:
    failed = failures(sweep.jobs)
    if not failed:
        return
    yield '<h2>Failed</h2><div class="card"><table><tbody>'
    for job in failed:
        settings = " ".join(f"{key}={job.settings.get(key)}" for key in sweep.differing)
        yield f'<tr><td class="n">{html.escape(job.name)}</td><td>{html.escape(settings)}</td>'
        yield f'<td class="bad">{html.escape(job.error)}</td></tr>'
    yield "</tbody></table></div>"
