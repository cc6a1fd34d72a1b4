"""Freezes weights for the first epochs, and unfreezes them then.

::

    Trainer(model, loss, opt, callbacks=FreezeCallback("backbone.*", epochs=3))
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from ...arguments import check_count
from ...optim.groups import check_patterns, matching, named_weights, no_match, plain
from ..base import Callback

if TYPE_CHECKING:
    from ...contracts import TrainerView


class FreezeCallback(Callback):
    """Freezes weights for the first epochs of a run, as while a new head is trained.

    The weights keep their values, and the norms with running statistics among the layers are in
    evaluation mode, so that their statistics stay as well. Then the weights are trained by the
    optimizer that has them from the beginning; give it a rate for them with ``param_groups``.
    Weights that did not require gradients before stay frozen.

    In one process the weights require no gradients meanwhile, which saves time and memory. In
    several processes their gradients are dropped before each step instead, because
    ``DistributedDataParallel`` waits for all gradients that it knew when it was made.

    Args:
        names: the name of a weight or of a layer, with ``*`` and ``?`` as in names of files, or a
            list of such names.
        epochs: the number of epochs, over all fits of the run.

    Raises:
        ConfigError: an argument has a wrong value; at the start of a fit, a name matches no
            weight of the model.

    Example:
        >>> freeze = FreezeCallback(["backbone.*", "embedding"], epochs=3)
    """

    order = -2  # before the gradients are clipped
    acts_in_tries = True

    def __init__(self, names: str | Sequence[str], epochs: int) -> None:
        super().__init__()
        self.names = check_patterns(type(self).__name__, names)
        self.epochs = check_count("epochs", epochs, 1)
        self._frozen: list[str] = []

    def check_fit(self, trainer: TrainerView, session: Any) -> None:
        """Raise if a name matches no weight."""
        model = trainer.runtime.unwrap(trainer.model)
        for name in self.names:
            if not matching(name, named_weights(model)):
                raise no_match(type(self).__name__, name, model)

    def on_before_train_epoch(self, trainer: TrainerView, task: Any) -> None:
        """Freeze, or unfreeze what was frozen here."""
        model: nn.Module = trainer.runtime.unwrap(trainer.model)
        weights = named_weights(model)
        if trainer.init_epoch >= self.epochs:
            for name in self._frozen:
                weights[name].requires_grad_(True)
            self._frozen = []
            return
        chosen = matching(self.names, weights)
        new = [name for name, weight in chosen.items() if weight.requires_grad]
        self._frozen = list(dict.fromkeys([*self._frozen, *new]))
        if trainer.runtime.num_processes == 1:
            for weight in chosen.values():
                weight.requires_grad_(False)
        for path, module in model.named_modules():
            if getattr(module, "running_mean", None) is not None:
                own = {f"{plain(path)}.{name}": Tensor() for name in ("weight", "running_mean")}
                if matching(self.names, own):
                    module.eval()

    def on_before_optimize(self, trainer: TrainerView, optimize_index: int | None) -> None:
        """Drop the gradients of weights that are frozen and have some: see the class."""
        if self._frozen and trainer.runtime.num_processes > 1:
            weights = named_weights(trainer.runtime.unwrap(trainer.model))
            for name in self._frozen:
                weights[name].grad = None

    def state_dict(self) -> dict[str, Any]:
        return {"frozen": list(self._frozen)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._frozen = list(state["frozen"])
