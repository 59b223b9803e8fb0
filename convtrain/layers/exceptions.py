"""The classes of ``torch.nn`` that the catalogue omits, with the reasons."""

_BASE = "a base for other classes, with no computation of its own"
_LAZY = "its sizes are inferred: declare {0}; once it has seen an input, it is a {0}"

EXCEPTIONS: dict[str, str] = {
    "Module": _BASE,
    "RNNBase": _BASE,
    "RNNCellBase": _BASE,
    "Container": "deprecated since torch 0.4: a Module by another name",
    "NLLLoss2d": "deprecated since torch 0.3: an NLLLoss by another name",
    "DataParallel": (
        "a way of running a model, not a layer of it: it wraps a model of either style; "
        "trainer strategies (DDP, FSDP) do the same for many processes"
    ),
    **{
        f"Lazy{name}": _LAZY.format(name)
        for name in (
            "Linear",
            *(f"Conv{n}d" for n in (1, 2, 3)),
            *(f"ConvTranspose{n}d" for n in (1, 2, 3)),
            *(f"BatchNorm{n}d" for n in (1, 2, 3)),
            *(f"InstanceNorm{n}d" for n in (1, 2, 3)),
        )
    },
}
