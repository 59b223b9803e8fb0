"""Format a sweep's numbers for its table, its page and its live line."""

from convtrain.sweeps.results import SeedGroup


def number(metric: str, value: float) -> str:
    return f"{value:.2%}" if metric.endswith("acc") else f"{value:.4g}"


def mean_and_std(group: SeedGroup, metric: str) -> str:
    """Return ``mean ± std`` over the seeds; leave out what is None."""
    mean, std = group.mean(metric), group.std(metric)
    if mean is None:
        return ""
    if std is None:
        return number(metric, mean)
    rough = number(metric, std) if metric.endswith("acc") else f"{std:.2g}"
    return f"{number(metric, mean)} ± {rough}"


def duration(seconds: float | None) -> str:
    """Return a duration in seconds, minutes or hours."""
    if seconds is None:
        return ""
    if (tenths := round(seconds, 1)) < 60:
        return f"{tenths:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"
