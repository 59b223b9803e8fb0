"""How the numbers of a sweep are written, in the table, on the page and in the live line."""


def number(metric: str, value: float) -> str:
    return f"{value:.2%}" if metric.endswith("acc") else f"{value:.4g}"


def mean_and_std(metric: str, mean: float | None, std: float | None) -> str:
    """Return a mean and, if there is one, the standard deviation."""
    if mean is None:
        return ""
    if std is None:
        return number(metric, mean)
    rough = number(metric, std) if metric.endswith("acc") else f"{std:.2g}"
    return f"{number(metric, mean)} ± {rough}"


def duration(seconds: float | None) -> str:
    """Return a time as people say it."""
    if seconds is None:
        return ""
    if (tenths := round(seconds, 1)) < 60:
        return f"{tenths:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"
