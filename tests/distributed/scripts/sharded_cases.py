"""The fits of ``cases.py`` and some more, with models that are sharded where processes are several.

Started as ``sharded_cases.py RESULT_FILE [NAME...]`` alone or with torchrun.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import cases
import torch
from cases import X, Y, loader, make_accelerator, train, whole
from sharding import shard
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.nn import functional as F

from deepepochs import (
    AnalyzeCallback,
    Callback,
    CheckCallback,
    EpochTask,
    GradClipCallback,
    LogCallback,
    NotFiniteError,
    Trainer,
    checkpoint,
)
from deepepochs import metrics as dm

plain_model = cases.make_model
IS_SHARDED = int(os.environ.get("WORLD_SIZE", "1")) > 1


def make_model(**options: Any) -> nn.Sequential:
    model = plain_model()
    if IS_SHARDED:
        shard(model, **options)
    return model


cases.make_model = make_model


def clipped() -> Any:
    """Clipping by value and by other norms, and another optimizer."""

    def fit(clip: Callback, kind: Any, rate: float) -> Any:
        model = make_model()
        opt = kind(model.parameters(), rate)
        accelerator = make_accelerator(split=True)
        return train(accelerator, loader(), loader(slice(31)), model=model, opt=opt, callbacks=clip)

    return {
        "largest": fit(GradClipCallback(0.02, float("inf")), torch.optim.SGD, 0.1),
        "first norm": fit(GradClipCallback(0.3, 1), torch.optim.SGD, 0.1),
        "value": fit(GradClipCallback(0.01), torch.optim.AdamW, 0.01),
    }


def hybrid() -> Any:
    return train(
        make_accelerator(split=True), loader(), loader(slice(31)), model=make_model(hybrid=True)
    )


def auto() -> Any:
    """No optimizer given, ``device='auto'``; a hook sees weights in shards after a validation."""
    kinds = []

    class See(Callback):
        def on_after_epoch(self, trainer: Any, **_: Any) -> None:
            kinds.append({type(weight).__name__ for weight in trainer.model.parameters()})

    size = 12 // make_accelerator(split=False).num_processes
    device = "auto" if IS_SHARDED else "cpu"
    trainer = Trainer(
        make_model(), F.cross_entropy, epochs=2, device=device, callbacks=See(),
        show_info=False, log_batch=False,
    )  # fmt: skip
    found = cases.outcome(trainer, trainer.fit(loader(size=size), loader(slice(31), size)))
    found["one kind of weights"] = all(kind == kinds[0] and len(kind) == 1 for kind in kinds)
    found["not wrapped"] = isinstance(trainer.model, nn.Sequential)
    return found


def checkpoints() -> Any:
    """The best weights in a test; a file read by a model that is not sharded."""
    accelerator = make_accelerator(split=True)
    with tempfile.TemporaryDirectory() as own:
        folder = accelerator_folder(accelerator, own)
        model = make_model()
        trainer = Trainer(
            model, F.cross_entropy, torch.optim.AdamW(model.parameters(), 0.3), epochs=5,
            device=accelerator, callbacks=[CheckCallback("loss", ckpt_dir=folder)], running_id="a",
            show_info=False, log_batch=False, metrics=dm.accuracy,
        )  # fmt: skip
        history = trainer.fit(loader(), loader(slice(31)))
        losses = [float(loss) for loss in history["val"]["loss"]]
        at_the_end = [whole(weight).clone() for weight in model.parameters()]
        tested = trainer.test(loader(slice(31)))
        after = [whole(weight).clone() for weight in model.parameters()]
        trainer.load_best()
        file = trainer.save_weights(Path(folder) / "weights.pt")
        best = checkpoint.load(Path(folder) / "a" / "best.ckpt")
        alone = plain_model()
        opt = torch.optim.AdamW(alone.parameters(), 0.3)
        reader = Trainer(alone, F.cross_entropy, opt, device="cpu", show_info=False)
        reader.load_weights(best)
        with torch.no_grad():
            loss = F.cross_entropy(alone(X[:31]), Y[:31])
        kept = [whole(weight).clone() for weight in model.parameters()]
        trainer.load_weights(Path(folder) / "a" / "checkpoint.ckpt")
        last = [whole(weight).clone() for weight in model.parameters()]
        trainer.load_weights({"0.weight": best["model"]["0.weight"]}, strict=False)
        partly = [whole(weight).clone() for weight in model.parameters()]
        trainer.load_weights(file)
        back = [whole(weight) for weight in model.parameters()]
        trainer.accelerator.wait_for_everyone()
    return {
        "best": min(losses), "tested": float(tested["loss"]), "alone": loss.item(),
        "put back": all(torch.equal(a, b) for a, b in zip(at_the_end, after, strict=True)),
        "the last is another": any(not torch.equal(a, b) for a, b in zip(kept, last, strict=True)),
        "one entry": torch.equal(partly[0], kept[0]) and torch.equal(partly[1], last[1]),
        "back again": all(torch.equal(a, b) for a, b in zip(kept, back, strict=True)),
        "steps of the optimizer that read it": len(opt.state), "losses": losses,
    }  # fmt: skip


def accelerator_folder(accelerator: Any, own: str) -> str:
    """The folder of the first process, for all."""
    from accelerate.utils import broadcast_object_list

    folders = [own]
    return str(broadcast_object_list(folders)[0])


def watched() -> Any:
    """Callbacks that look at layers and files, a learning-rate search, and a stop by a NaN."""
    accelerator = make_accelerator(split=True)
    with tempfile.TemporaryDirectory() as own:
        folder = accelerator_folder(accelerator, own)
        model = make_model()
        opt = torch.optim.SGD(model.parameters(), 0.1)
        trainer = Trainer(
            model, F.cross_entropy, opt, epochs=2, device=accelerator, show_info=False,
            log_batch=False, running_id="a",
            callbacks=[AnalyzeCallback("both", folder, every_n_batches=2), LogCallback(folder)],
        )  # fmt: skip
        trainer.find_lr(loader(), max_batch=6)
        untouched = torch.equal(whole(model[0].weight), plain_model()[0].weight)
        found = cases.outcome(trainer, trainer.fit(loader(), loader(slice(31))))
        trainer.report()
        trainer.accelerator.wait_for_everyone()
    found["the search left the weights"] = untouched
    model = make_model()
    stopped = Trainer(
        model, lambda out, y: F.cross_entropy(out, y) * float("nan"), device=accelerator,
        show_info=False, log_batch=False,
    )  # fmt: skip
    before = [whole(weight).clone() for weight in model.parameters()]
    try:
        stopped.fit(loader(slice(48)))
        found["stopped"] = False
    except NotFiniteError:
        found["stopped"] = True
    after = [whole(weight) for weight in model.parameters()]
    found["weights kept"] = all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    return found


def in_bf16() -> Any:
    """Learns in bfloat16; the weights stay in float32."""
    seen = set()
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = make_model(mp_policy=policy) if IS_SHARDED else plain_model().to(torch.float32)
    model[1].register_forward_hook(lambda _layer, _inputs, out: seen.add(str(out.dtype)))
    task = EpochTask if IS_SHARDED else Autocast
    found = train(make_accelerator(split=True), loader(), model=model, task=task, epochs=6)
    losses = found["history"]["train"]["loss"]
    return {
        "seen": sorted(seen), "learns": losses[-1] < 0.9 * losses[0],
        "weights": sorted({str(weight.dtype) for weight in model.parameters()}),
    }  # fmt: skip


class Autocast(EpochTask):
    """The same precision in one process."""

    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        with torch.autocast("cpu", torch.bfloat16):
            out = self.model(*batch_x)
        self.loss(out.float(), batch_y)


def own_buffers() -> Any:
    """The statistics of batch normalisation are those of the first process in all."""
    torch.manual_seed(0)
    model: Any = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3))
    if IS_SHARDED:
        shard(model)
    accelerator = make_accelerator(split=True)
    trainer = Trainer(model, F.cross_entropy, device=accelerator, show_info=False, log_batch=False)
    trainer.fit(loader(slice(48)), loader(slice(12)), epochs=1)
    trainer.predict(loader(slice(12)))
    means = trainer.runtime.gather_objects(model[1].running_mean.tolist())
    counts = trainer.runtime.gather_objects(int(model[1].num_batches_tracked))
    return {"same": all(mean == means[0] for mean in means), "counts": sorted(set(counts))}


SHARED = [
    "function_metrics", "mean_and_confusion", "returned_patches", "whole_batches", "few_samples",
    "streams", "ready_batches", "accumulated", "averaged", "frozen_first", "by_hand", "several", "plateau", "predictions", "early_stop",
]  # fmt: skip
OWN = [clipped, hybrid, auto, checkpoints, watched, in_bf16, own_buffers]
cases.CASES = {
    **{name: cases.CASES[name] for name in SHARED},
    **{case.__name__: case for case in OWN},
}

if __name__ == "__main__":
    cases.main()
