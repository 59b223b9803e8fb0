"""What the tiers above ``norms`` measure, at the steps that are sampled."""

from collections.abc import Sequence

import torch
from torch import Tensor

from convtrain.gradients.record.overhead import Overhead
from convtrain.gradients.record.rows import Row
from convtrain.gradients.record.schedule import Plan
from convtrain.gradients.record.statistics import describe, histogram, inner_products, norms_of
from convtrain.text import matches
from convtrain.training.norms import whole
from convtrain.training.sharding import gathered

PICTURED = 4  # convolutions, the first ones, whose filters are shown
FILTERS, CHANNELS = 16, 4  # of each


class Details:
    """Measures gradients in full, and the weights before and after a step.

    Args:
        plan: names the tensors that are kept whole.
        names: of all parameters, by column.
        overhead: is told which detail takes the time.

    Attributes:
        previous: gradients, by column, that the next step will be compared with.
        stepping: the row, and the weights before the step that is being done.
    """

    def __init__(self, plan: Plan, names: Sequence[str], overhead: Overhead) -> None:
        self._plan, self._names, self._overhead = plan, names, overhead
        self.previous: dict[int, Tensor] = {}
        self.stepping: tuple[Row, list[Tensor], list[Tensor]] | None = None

    def before_step(
        self,
        row: Row,
        due: frozenset[str],
        *,
        keep: bool,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
    ) -> None:
        """Measure the gradients of a step that is about to be done.

        Args:
            due: what the plan wants of this step.
            keep: the next step will be compared with this one.
            parameters, gradients: for each column of the row.
        """
        with self._overhead.of("statistics"):
            previous = [self.previous.pop(column, None) for column in row.columns]
            if "statistics" in due:
                row.described = describe(gradients)
                row.cosine = _cosines(gradients, previous)
                before = [parameter.detach().clone() for parameter in parameters]
                self.stepping = row, list(parameters), before
            if keep:
                self.previous.update(
                    (column, gradient.detach().clone())
                    for column, gradient in zip(row.columns, gradients, strict=True)
                )
        if "distributions" in due:
            with self._overhead.of("distributions"):
                row.histograms = torch.stack([histogram(gradient) for gradient in gradients])
                row.pictures = self._pictures(row, parameters, gradients)
        if "tensors" in due:
            with self._overhead.of("tensors"):
                row.tensors = {
                    self._names[column]: whole(gradient.detach()).clone()
                    for column, gradient in zip(row.columns, gradients, strict=True)
                    if matches(self._names[column], self._plan.tensor_names)
                }

    def after_step(self) -> None:
        """Measure how far the weights went; a step that was skipped went nowhere."""
        if self.stepping is not None:
            with self._overhead.of("statistics"):
                row, parameters, before = self.stepping
                self.stepping = None
                moved = norms_of([p.detach() - b for p, b in zip(parameters, before, strict=True)])
                row.update_ratio = moved / norms_of(before)

    def state_dict(self) -> dict[str, Tensor]:
        return {self._names[column]: gathered(tensor) for column, tensor in self.previous.items()}

    def load_state_dict(self, state: dict[str, Tensor], device: torch.device) -> None:
        columns = {name: column for column, name in enumerate(self._names)}
        self.previous = {
            columns[name]: tensor.to(device) for name, tensor in state.items() if name in columns
        }

    def _pictures(
        self, row: Row, parameters: Sequence[Tensor], gradients: Sequence[Tensor]
    ) -> dict[str, tuple[Tensor, Tensor]]:
        found: dict[str, tuple[Tensor, Tensor]] = {}
        for column, parameter, gradient in zip(row.columns, parameters, gradients, strict=True):
            if parameter.ndim == 4 and parameter.shape[-1] > 1 and len(found) < PICTURED:
                part = slice(FILTERS), slice(CHANNELS)
                found[self._names[column]] = (
                    whole(parameter.detach())[part].float().clone(),
                    whole(gradient.detach())[part].float().clone(),
                )
        return found


def _cosines(gradients: Sequence[Tensor], previous: Sequence[Tensor | None]) -> Tensor:
    """Return the cosine of each gradient with the one before; NaN without one, or for zero."""
    known = [index for index, tensor in enumerate(previous) if tensor is not None]
    cosines = torch.full((len(gradients),), torch.nan, device=gradients[0].device)
    if known:
        first = [gradients[index] for index in known]
        second = [tensor for tensor in previous if tensor is not None]
        products = inner_products(first, second) / (norms_of(first) * norms_of(second))
        if len(known) == len(gradients):
            return products.to(cosines.dtype)
        for index, product in zip(known, products, strict=True):  # a list of places would wait
            cosines[index] = product
    return cosines
