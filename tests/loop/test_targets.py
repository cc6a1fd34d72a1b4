"""`targets=` names the entry of a dict mini-batch that is the target."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from deepepochs import ConfigError, DataError, EpochTask, MetricError, Trainer
from deepepochs.metrics import accuracy


def samples(num: int = 20) -> list[dict[str, Any]]:
    x = torch.randn(num, 4, generator=torch.Generator().manual_seed(0))
    return [{"x": row, "labels": int(row.sum() > 0)} for row in x]


def loader(num: int = 20) -> DataLoader[Any]:
    return DataLoader(samples(num), batch_size=8)  # type: ignore[arg-type]


class TakesX(nn.Module):
    """A model that does not know labels."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class ComputesLoss(TakesX):
    """A model that computes its loss where it gets labels, as those of Hugging Face do."""

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Any:
        out = {"logits": self.layer(x)}
        return out if labels is None else {"loss": F.cross_entropy(out["logits"], labels), **out}


def accuracy_of_logits(preds: Any, targets: Tensor) -> Any:
    return accuracy(preds["logits"], targets)


def options(**others: Any) -> dict[str, Any]:
    return {"epochs": 2, "show_info": False, "device": "cpu", **others}


def same_model(kind: type[nn.Module]) -> Any:
    torch.manual_seed(0)
    return kind()


def test_the_entry_is_the_target_of_loss_and_metrics_and_no_input() -> None:
    model = same_model(TakesX)
    pairs = [(batch["x"], batch["labels"]) for batch in loader()]
    named = Trainer(model, F.cross_entropy, metrics=accuracy, targets="labels", **options()).fit(
        loader(), loader()
    )
    usual = Trainer(same_model(TakesX), F.cross_entropy, metrics=accuracy, **options()).fit(
        pairs, pairs
    )
    assert named == usual


def test_the_entry_stays_where_the_model_computes_the_loss() -> None:
    named = Trainer(
        same_model(ComputesLoss), metrics=accuracy_of_logits, targets="labels", **options()
    ).fit(loader())
    pairs = [(batch["x"], batch["labels"]) for batch in loader()]
    usual = Trainer(same_model(TakesX), F.cross_entropy, metrics=accuracy, **options()).fit(pairs)
    assert named["train"]["loss"] == usual["train"]["loss"]
    assert named["train"]["accuracy_of_logits"] == usual["train"]["accuracy"]


def test_a_task_names_its_own_entry() -> None:
    other = [{"x": s["x"], "kind": s["labels"]} for s in samples()]
    task = EpochTask(DataLoader(other, batch_size=8), targets="kind", name="other")  # type: ignore[arg-type]
    trainer = Trainer(
        same_model(TakesX), F.cross_entropy, metrics=accuracy, targets="labels", **options()
    )
    trainer.fit(loader())
    tested = trainer.test(loader(), tasks=task)
    assert tested["other/accuracy"] == tested["0/accuracy"]


def test_the_target_is_what_a_mini_batch_weighs_and_what_a_step_gets() -> None:
    seen = []

    class Sees(EpochTask):
        def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
            seen.append((sorted(batch_x), batch_y.shape[0], self.current_batch_size))
            self.loss(self.model(**batch_x), batch_y)

    trainer = Trainer(TakesX(), F.cross_entropy, targets="labels", **options(epochs=1))
    trainer.fit(train_tasks=Sees(loader()))
    assert seen == [(["x"], 8, 8), (["x"], 8, 8), (["x"], 4, 4)]


@pytest.mark.parametrize("loss", [F.cross_entropy, None])
def test_predict_leaves_the_target_out_or_needs_none(loss: Any) -> None:
    model = same_model(ComputesLoss if loss is None else TakesX)
    trainer = Trainer(model, loss, targets="labels", **options())
    inputs = [{"x": batch["x"]} for batch in loader()]
    expected = trainer.predict(inputs)
    found = trainer.predict(loader(), with_targets=True)
    for name in ["logits"] if loss is None else [slice(None)]:
        assert torch.equal(found[name], expected[name])
    if loss is not None:
        assert torch.equal(trainer.predict(loader()), expected)


def test_a_name_that_the_mini_batch_lacks_is_told_with_its_entries() -> None:
    trainer = Trainer(TakesX(), F.cross_entropy, targets="label", **options())
    with pytest.raises(DataError, match=r"without the entry 'label'.*'x', 'labels'"):
        trainer.fit(loader())


@pytest.mark.parametrize("wrong", [1, ["labels"], F.cross_entropy])
def test_a_name_that_is_no_text_is_refused(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="targets="):
        Trainer(TakesX(), F.cross_entropy, targets=wrong)
    with pytest.raises(ConfigError, match="targets="):
        EpochTask(loader(), targets=wrong)


def test_mini_batches_that_are_no_dicts_are_split_as_ever() -> None:
    pairs = [(batch["x"], batch["labels"]) for batch in loader()]
    fits = [
        Trainer(same_model(TakesX), F.cross_entropy, targets=targets, **options()).fit(pairs)
        for targets in ("labels", None)
    ]
    assert fits[0] == fits[1]


def test_a_model_of_hugging_face_trains_validates_and_predicts() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=16, max_position_embeddings=8, num_labels=2,
    )  # fmt: skip
    torch.manual_seed(0)
    model = transformers.BertForSequenceClassification(config)
    ids = torch.randint(0, 30, (32, 8), generator=torch.Generator().manual_seed(1))
    data = [
        {"input_ids": row, "attention_mask": torch.ones(8, dtype=torch.long), "labels": row[0] % 2}
        for row in ids
    ]
    batches = DataLoader(data, batch_size=8, shuffle=True)  # type: ignore[arg-type]
    opt = torch.optim.AdamW(model.parameters(), lr=5e-3)
    trainer = Trainer(
        model, opt=opt, metrics=accuracy_of_logits, targets="labels", **options(epochs=20)
    )
    history = trainer.fit(batches, batches)
    assert history["val"]["accuracy_of_logits"][-1] > 0.9
    inputs = DataLoader([{k: v for k, v in s.items() if k != "labels"} for s in data], 8)  # type: ignore[arg-type]
    assert trainer.predict(inputs)["logits"].shape == (32, 2)


def test_a_metric_without_targets_names_the_argument() -> None:
    trainer = Trainer(same_model(ComputesLoss), metrics="accuracy", **options())
    with pytest.raises(MetricError, match=r"There are no targets.*targets='labels'"):
        trainer.fit(loader())
