"""A metric over the seeds and folds of a sweep, for its table and its page."""

from convtrain.sweeps.results import Replicates
from convtrain.text import format_metric


def mean_and_std(group: Replicates, metric: str) -> str:
    """Return ``mean ± std`` over the jobs; leave out what is None."""
    mean, std = group.mean(metric), group.std(metric)
    if mean is None:
        return ""
    if std is None:
        return format_metric(metric, mean)
    rough = format_metric(metric, std) if metric.endswith("acc") else f"{std:.2g}"
    return f"{format_metric(metric, mean)} ± {rough}"
