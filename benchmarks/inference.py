"""``test`` and ``predict``, against the loops by hand, in turns of 20 ms.

The MLP of W1 is tested on 20,000 samples in batches of 256 with loss and accuracy, ten times over,
and predicts them ten times over. Outputs of ``predict`` are joined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import forks
import report
import torch
from interleave import Interleaver, Ticking
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from workloads import cross_entropy, digits, likeness, mlp

COLUMNS = ["test", "predict"]
PASSES = 10
Results = list[Tensor]  # loss and accuracy of each pass, or the predictions


def made(tick: Callable[[Any], Any]) -> tuple[nn.Module, DataLoader[Any]]:
    """Give the model, which calls ``tick`` at each mini-batch, and the data."""
    torch.manual_seed(0)
    data = TensorDataset(*digits(20_000, 784))
    return nn.Sequential(Ticking(tick), *mlp(dropout=0.1)), DataLoader(data, 256)


def by_hand(kind: str, tick: Callable[[Any], Any], results: Results) -> Iterator[None]:
    """The reference: yields after each mini-batch."""
    model, loader = made(tick)
    model.eval()
    for _ in range(PASSES):
        total, right, count, outs = torch.zeros(()), torch.zeros((), dtype=torch.long), 0, []
        for x, y in loader:
            with torch.no_grad():
                out = model(x)
                if kind == "test":
                    total += cross_entropy(out, y) * len(y)
                    right += (out.argmax(1) == y).sum()
                    count += len(y)
                else:
                    outs.append(out)
            yield
        if kind == "test":
            results.append(torch.tensor([(total / count).item(), right.item() / count]))
        else:
            results.append(torch.cat(outs))


def hand_written(kind: str, tick: Callable[[Any], Any]) -> Results:
    results: Results = []
    for _ in by_hand(kind, tick, results):
        pass
    return results


def with_deepepochs(kind: str, tick: Callable[[Any], Any]) -> Results:
    from deepepochs import Trainer, metrics

    model, loader = made(tick)
    trainer = Trainer(model, cross_entropy, metrics=[metrics.accuracy])
    results = []
    for _ in range(PASSES):
        if kind == "test":
            found = trainer.test(loader)
            results.append(torch.tensor([found["loss"], found["accuracy"]]))
        else:
            results.append(trainer.predict(loader))
    return results


def model_alone(kind: str, tick: Callable[[Any], Any]) -> Results:
    """What nobody can leave out: the model on slices of the data."""
    model, loader = made(tick)
    x, y = loader.dataset.tensors  # type: ignore[attr-defined]
    model.eval()
    results: Results = []
    with torch.no_grad():
        for _ in range(PASSES):
            out = torch.cat([model(part) for part in x.split(256)])
            right = (out.argmax(1) == y).float().mean()
            found = torch.stack([cross_entropy(out, y), right])
            results.append(found if kind == "test" else out)
    return results


def with_lightning(kind: str, tick: Callable[[Any], Any]) -> Results:
    import logging

    import lightning

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    model, loader = made(tick)

    class Module(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.net = model

        def test_step(self, batch: Any, batch_idx: int) -> None:
            x, y = batch
            out = self.net(x)
            values = {"loss": cross_entropy(out, y), "acc": (out.argmax(1) == y).float().mean()}
            self.log_dict(values, batch_size=len(y))

        def predict_step(self, batch: Any, batch_idx: int) -> Any:
            return self.net(batch[0])

    trainer = lightning.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False)
    module, results = Module(), []
    for _ in range(PASSES):
        if kind == "test":
            found = trainer.test(module, loader)[0]
            results.append(torch.tensor([found["loss"], found["acc"]]))
        else:
            results.append(torch.cat(trainer.predict(module, loader)))
    return results


SYSTEMS = {
    "hand-written loop": hand_written,
    "the model alone": model_alone,
    "deepepochs, default": with_deepepochs,
    "Lightning, default": with_lightning,
}


def measure(system: str, kind: str) -> dict[str, Any]:
    """Measure in this process."""
    SYSTEMS[system](kind, lambda x: x)  # both warm up alike
    by_hand_results: Results = []
    timer = Interleaver(lambda x: x, lambda tick: by_hand(kind, tick, by_hand_results))
    timer.start()
    results = SYSTEMS[system](kind, timer)
    timer.stop()
    return {**timer.row(), "results": likeness(results, by_hand_results)}


def sections(options: report.Options) -> report.Sections:
    """Give the table, after each round."""
    pairs = [(name, column) for name in SYSTEMS for column in COLUMNS]
    alone = partial(forks.call, measure, cores=[options.core])
    for table in report.compared(alone, pairs, options):
        yield (
            "Processor time, on one core: the MLP of W1 on 20,000 samples in batches of 256. "
            "`test` counts loss and accuracy, `predict` gives all outputs.\n\n" + table
        )
