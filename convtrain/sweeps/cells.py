"""A metric over the seeds of a sweep, for its table and its page."""

from convtrain.sweeps.results import SeedGroup
from convtrain.text import format_metric


def mean_and_std(group: SeedGroup, metric: str) -> str:
    """Return ``mean ± std`` over the seeds; leave out what is None."""
    mean, std = group.mean(metric), group.std(metric)
    if mean is None:
        return ""
    if std is None:
        return format_metric(metric, mean)
    rough = format_metric(metric, std) if metric.endswith("acc") else f"{std:.2g}"
    return f"{format_metric(metric, mean)} ± {rough}"
