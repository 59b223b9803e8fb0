"""Muon for a whole network: ``torch.optim.Muon`` for its matrices, ``AdamW`` for its vectors."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import AdamW, Optimizer
from torch.optim import Muon as MatrixMuon

Options = dict[str, object]
"""Options of a parameter group of ``torch.optim``."""


class Muon(Optimizer):
    """Orthogonalise the updates of matrices, and update vectors by AdamW.

    As in Keller Jordan's Muon (https://kellerjordan.github.io/posts/muon/), a filter of shape (out,
    in, height, width) is the matrix (out, in * height * width). A parameter whose matrix has a
    single row or column is a vector: biases, the weights of batch norms, layer scales.

    Each group of ``params`` becomes two, its matrices and its vectors. The ``weight_decay`` of a
    group holds for both; its ``lr`` is that of the matrices, and scales that of the vectors.

    Args:
        lr, momentum, nesterov, weight_decay, ns_coefficients, ns_steps, eps, adjust_lr_fn:
            arguments of ``torch.optim.Muon``.
        adamw_lr, adamw_betas, adamw_eps, adamw_weight_decay: arguments of ``torch.optim.AdamW``.
        fused: whether one kernel updates all vectors of a group.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Options],
        *,
        lr: float = 0.02,
        momentum: float = 0.95,
        nesterov: bool = True,
        weight_decay: float = 0.0,
        ns_coefficients: Sequence[float] = (3.4445, -4.775, 2.0315),
        ns_steps: int = 5,
        eps: float = 1e-7,
        adjust_lr_fn: str | None = None,
        adamw_lr: float = 0.003,
        adamw_betas: Sequence[float] = (0.9, 0.95),
        adamw_eps: float = 1e-10,
        adamw_weight_decay: float = 0.0,
        fused: bool = False,
    ) -> None:
        muon: Options = {
            "lr": lr,
            "momentum": momentum,
            "nesterov": nesterov,
            "weight_decay": weight_decay,
            "ns_coefficients": ns_coefficients,
            "ns_steps": ns_steps,
            "eps": eps,
            "adjust_lr_fn": adjust_lr_fn,
            "orthogonalise": True,
        }
        adamw: Options = {
            "lr": adamw_lr,
            "betas": adamw_betas,
            "eps": adamw_eps,
            "weight_decay": adamw_weight_decay,
            "fused": fused or None,  # torch chooses by itself where it is None
            "orthogonalise": False,
        }
        groups: list[Options] = []
        for tensors, own in _as_groups(params):
            of_vectors = {key: value for key, value in own.items() if key not in muon}
            if "weight_decay" in own:
                of_vectors["weight_decay"] = own["weight_decay"]
            if isinstance(its_lr := own.get("lr"), float | int):
                of_vectors["lr"] = its_lr * (adamw_lr / lr)
            if matrices := [p for p in tensors if is_matrix(p)]:
                groups.append({**muon, **own, "params": matrices})
            if vectors := [p for p in tensors if not is_matrix(p)]:
                groups.append({**adamw, **of_vectors, "params": vectors})
        super().__init__(groups, {})

    @torch.no_grad()
    def step(  # type: ignore[override]
        self, closure: Callable[[], float] | None = None
    ) -> float | None:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            params = [p for p in group["params"] if p.grad is not None]
            if params and group["orthogonalise"]:
                self._step_matrices(params, group)
            elif params:
                adamw = AdamW([{**group, "params": params}], fused=group["fused"])
                adamw.state = self.state
                adamw.step()
        return loss

    def _step_matrices(self, params: Sequence[Tensor], group: Mapping[str, object]) -> None:
        matrices = [p.detach().flatten(1) for p in params]  # views, if they are contiguous
        for matrix, p in zip(matrices, params, strict=True):
            assert p.grad is not None
            matrix.grad = p.grad.flatten(1)
        muon = MatrixMuon([{**group, "params": matrices}])
        states = (self.state[p] for p in params)
        muon.state.update(zip(matrices, states, strict=True))
        muon.step()
        for matrix, p in zip(matrices, params, strict=True):
            if not p.is_contiguous():
                p.copy_(matrix.view(p.shape))


def is_matrix(parameter: Tensor) -> bool:
    """Return whether a parameter has rows and columns, two or more of each."""
    return parameter.ndim > 1 and parameter.numel() > len(parameter) > 1


def _as_groups(
    params: Iterable[Tensor] | Iterable[Options],
) -> Iterator[tuple[list[Tensor], Options]]:
    """Yield the parameters and the options of each group."""
    given = list(params)
    plain = [p for p in given if isinstance(p, Tensor)]
    if plain:
        yield plain, {}
    for group in given:
        if isinstance(group, dict):
            own = {key: value for key, value in group.items() if key != "params"}
            tensors = group["params"]
            assert isinstance(tensors, list)
            yield tensors, own
