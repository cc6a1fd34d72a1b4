"""Programs with a mistake in their data, shapes, dtypes, outputs or losses, and what must be said.

Each is what somebody writes in the first hour. The words are those of the first and the second
line of the message: the problem, and the remedy.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import lr_scheduler as schedules
from torch.utils.data import DataLoader, Dataset, TensorDataset

from deepepochs import Callback, EpochTask, Optimizer, Trainer
from deepepochs.metrics import accuracy

torch.manual_seed(0)
X = torch.randn(64, 8)
IMAGES = torch.randn(64, 1, 12, 12)
NUMBERS = torch.randint(10, (64, 5))  # of words
CLASSES = torch.arange(64) % 3
YES = torch.arange(64) % 2
TARGETS = torch.randn(64)


class Mistake(NamedTuple):
    """A program that does not train as it is meant to, and the words that say why and what to do."""

    name: str
    program: Callable[[], Any]
    problem: str
    remedy: str


def loader(x: Any, y: Any, **options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(x, y), **{"batch_size": 32, **options})


def train(model: nn.Module, data: Any, loss: Any = F.cross_entropy, **options: Any) -> Any:
    options = {"epochs": 2, "show_info": False, "log_batch": False, "device": "cpu", **options}
    val_dl = options.pop("val_dl", None)
    return Trainer(model, loss, **options).fit(data, val_dl)


def fit(model: nn.Module, x: Tensor, y: Tensor, loss: Any = F.cross_entropy, **options: Any) -> Any:
    return train(model, loader(x, y), loss, **options)


def run_step(step: Callable[..., Any], model: Any = None, **options: Any) -> Any:
    step.__qualname__ = "MyTask.step"
    task = type("MyTask", (EpochTask,), {"step": step})(loader(X, CLASSES))
    options = {"epochs": 2, "show_info": False, "log_batch": False, **options}
    return Trainer(model or linear(), F.cross_entropy, **options).fit(train_tasks=task)


def linear(num_out: int = 3, num_in: int = 8) -> nn.Linear:
    return nn.Linear(num_in, num_out)


def small_conv(num_in: int = 1, flat: int = 200) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(num_in, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(flat, 3))


class Net(nn.Module):
    """One layer, and something done with what it gives."""

    def __init__(self, change: Callable[[Any], Any] = lambda out: out) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 3)
        self.change = change

    def forward(self, x: Any) -> Any:
        return self.change(self.layer(x))


class Tokens(nn.Module):
    """Takes the numbers of words by name, as the models of Hugging Face do."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 3)

    def forward(self, input_ids: Any, labels: Any = None) -> Any:
        logits = self.head(self.embedding(input_ids).mean(1))
        return Output(logits, None if labels is None else F.cross_entropy(logits, labels))


@dataclass
class Output:
    logits: Any
    loss: Any = None


class Pairs(NamedTuple):
    mean: Any
    variance: Any


class HiddenLayers(nn.Module):
    """Keeps its layers in a list, where neither a device nor an optimizer finds them."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(8, 8)
        self.layers = [nn.Linear(8, 3, device="meta")]

    def forward(self, x: Any) -> Any:
        return self.layers[0](self.first(x))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.attention(x, x, x)[0].mean(1))


class Keeping(nn.Module):
    """A recurrent model that keeps its state from one mini-batch to the next."""

    def __init__(self, *, detaches: bool = False) -> None:
        super().__init__()
        self.rnn = nn.RNN(8, 3, batch_first=True)
        self.detaches = detaches
        self.state: Any = None

    def forward(self, x: Any) -> Any:
        out, state = self.rnn(x[:, None], self.state)
        self.state = state.detach() if self.detaches else state
        return out[:, -1]


class Samples(Dataset[Any]):
    def __init__(self, make: Callable[[int], Any]) -> None:
        self.make = make

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        return self.make(index)


def from_samples(make: Callable[[int], Any]) -> DataLoader[Any]:
    return DataLoader(Samples(make), batch_size=4)


def bare_tuple(self: Any, batch_x: Any, batch_y: Any) -> None:
    self.loss(self.model(batch_x), batch_y)


def backward_after(self: Any, batch_x: Any, batch_y: Any) -> None:
    loss = self.loss(self.model(*batch_x), batch_y)
    loss.backward()


def backward_before(self: Any, batch_x: Any, batch_y: Any) -> None:
    model_out = self.model(*batch_x)
    self.loss_fn(model_out, batch_y).backward()
    self.loss(model_out, batch_y)


def without_gradients(self: Any, batch_x: Any, batch_y: Any) -> None:
    with torch.no_grad():
        model_out = self.model(*batch_x)
    self.loss(model_out, batch_y)


def returns_loss(self: Any, batch_x: Any, batch_y: Any) -> Any:
    return self.loss_fn(self.model(*batch_x), batch_y)


def gives_none(self: Any, batch_x: Any, batch_y: Any) -> None:
    self.model(*batch_x)
    self.loss(None, batch_y)


def frozen() -> nn.Module:
    return linear().requires_grad_(False)


def without_memory(out: Any) -> Any:
    return out + torch.empty(2**50).mean()


def without_device_memory(out: Any) -> Any:
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")


LABELS = [
    Mistake("float labels", lambda: fit(linear(), X, CLASSES.float()), "The labels are float32 [32]: cross_entropy wants class numbers", "labels.long()"),
    Mistake("float labels for the class", lambda: fit(linear(), X, CLASSES.float(), nn.CrossEntropyLoss()), "CrossEntropyLoss wants class numbers", "lambda out, y: loss(out, y.long())"),
    Mistake("float labels for a partial", lambda: fit(linear(), X, CLASSES.float(), partial(F.cross_entropy, label_smoothing=0.1)), "The labels are float32 [32]", "labels.long()"),
    Mistake("float labels in a loss of one's own", lambda: fit(linear(), X, CLASSES.float(), lambda out, y: F.cross_entropy(out, y) + 1), "The labels are float32 [32]", "labels.long(), in the data set or before the loss"),
    Mistake("float labels for nll_loss", lambda: fit(nn.Sequential(linear(), nn.LogSoftmax(1)), X, CLASSES.float(), F.nll_loss), "nll_loss wants class numbers", "labels.long()"),
    Mistake("int32 labels", lambda: fit(linear(), X, CLASSES.int()), "The labels are int32 [32]", "labels.long()"),
    Mistake("bool labels", lambda: fit(linear(2), X, YES.bool()), "The labels are bool [32]", "labels.long()"),
    Mistake("numbers to predict as labels", lambda: fit(linear(), X, TARGETS), "not all whole numbers", "take F.mse_loss and a model with one output"),
    Mistake("labels in a column", lambda: fit(linear(), X, CLASSES[:, None]), "The labels are int64 [32, 1]: cross_entropy wants [32]", "labels.squeeze(1)"),
    Mistake("float labels in a column", lambda: fit(linear(), X, CLASSES[:, None].float()), "The labels are float32 [32, 1]", "labels.squeeze(1).long()"),
    Mistake("one-hot labels", lambda: fit(linear(), X, F.one_hot(CLASSES)), "a row of 3 for each sample: cross_entropy wants class numbers, [32]", "labels.argmax(1)"),
    Mistake("labels out of range", lambda: fit(linear(2), X, YES + 5), "The labels go from 5 to 6, and the model has 2 outputs", "at least 7 outputs"),
    Mistake("labels from 1", lambda: fit(linear(), X, CLASSES + 1), "The labels go from 1 to 3, and the model has 3 outputs, for the classes 0 to 2", "labels - 1"),
    Mistake("labels -1 and 1", lambda: fit(linear(2), X, YES * 2 - 1), "The labels go from -1 to 1", "(labels + 1) // 2"),
    Mistake("negative labels", lambda: fit(linear(), X, CLASSES - 1), "The labels go from -1 to 1, and the model has 3 outputs", "labels + 1. To leave samples out, say so: nn.CrossEntropyLoss(ignore_index=-1)"),
    Mistake("cross_entropy of one output", lambda: fit(linear(1), X, YES), "The model has one output, [32, 1], and cross_entropy wants one for each class", "binary_cross_entropy_with_logits"),
    Mistake("classes in the last dimension", lambda: fit(nn.Embedding(10, 4), NUMBERS, NUMBERS % 4), "The model gives float32 [32, 5, 4] for labels [32, 5]: cross_entropy wants the classes in dimension 1", "out.movedim(-1, 1)"),
    Mistake("an output of another length", lambda: fit(Net(lambda out: out.view(-1, 6)), X, CLASSES), "The model gives 16 rows, float32 [16, 6], for 32 targets", "x.flatten(1)"),
    Mistake("texts as labels", lambda: train(linear(), from_samples(lambda i: (X[i], "cat"))), "The labels are texts, such as 'cat'", "Number the classes"),
    Mistake("a list of labels", lambda: train(linear(), [(X[:4], [0, 1, 2, 0])]), "The labels are (0, 1, 2, 0)", "torch.tensor(labels)"),
    Mistake("NumPy labels", lambda: train(linear(), [(X, CLASSES.numpy())]), "The loader yields NumPy arrays: the labels are NumPy int64 [64]", "torch.from_numpy(y)"),
    Mistake("labels on another device", lambda: train(linear(), [(X, CLASSES.to("meta"))], auto_traindata_to_device=False), "The outputs are on cpu, and the labels on meta", "batch_y.to(self.device)"),
    Mistake("int labels for bce", lambda: fit(nn.Sequential(linear(1), nn.Sigmoid()), X, YES[:, None], F.binary_cross_entropy), "The labels are int64 [32, 1]: binary_cross_entropy wants float32", "labels.float()"),
    Mistake("int labels for bce_with_logits", lambda: fit(linear(1), X, YES[:, None], F.binary_cross_entropy_with_logits), "binary_cross_entropy_with_logits wants float32", "labels.float()"),
    Mistake("bce of a column and a row", lambda: fit(linear(1), X, YES, nn.BCEWithLogitsLoss()), "The model gives float32 [32, 1] and the labels are int64 [32]", "labels.float().unsqueeze(1)"),
    Mistake("bce of a row and a column", lambda: fit(Net(lambda out: out[:, 0]), X, YES[:, None].float(), nn.BCEWithLogitsLoss()), "The model gives float32 [32] and the labels are float32 [32, 1]", "labels.squeeze(1)"),
    Mistake("bce of two outputs", lambda: fit(linear(2), X, YES.float(), nn.BCEWithLogitsLoss()), "The model gives float32 [32, 2] and the labels are float32 [32]", "take F.cross_entropy with labels.long()"),
    Mistake("bce of raw outputs", lambda: fit(linear(1), X, YES[:, None].float(), nn.BCELoss()), "BCELoss wants probabilities, from 0 to 1", "F.binary_cross_entropy_with_logits"),
    Mistake("bce of labels above 1", lambda: fit(nn.Sequential(linear(1), nn.Sigmoid()), X, CLASSES[:, None].float(), nn.BCELoss()), "The labels go from 0 to 2", "F.cross_entropy"),
    Mistake("mse of a column and a row", lambda: fit(linear(1), X, TARGETS, F.mse_loss), "The model gives float32 [32, 1] and the targets are float32 [32]: mse_loss would compare each output with all targets", "targets.unsqueeze(1)"),
    Mistake("mse of a row and a column", lambda: fit(Net(lambda out: out[:, 0]), X, TARGETS[:, None], nn.MSELoss()), "The model gives float32 [32] and the targets are float32 [32, 1]", "targets.squeeze(1)"),
    Mistake("l1 of a column and a row of doubles", lambda: fit(linear(1), X, TARGETS.double(), nn.L1Loss()), "l1_loss would compare each output with all targets", "targets.float().unsqueeze(1)"),
    Mistake("mse of images with and without channel", lambda: fit(nn.Conv2d(1, 1, 1), IMAGES, IMAGES[:, 0], nn.SmoothL1Loss()), "smooth_l1_loss would compare", "targets.unsqueeze(1)"),
    Mistake("mse that does not fit in a loss of one's own", lambda: fit(linear(10), X, X[:, :3], lambda out, y: F.l1_loss(out, y)), "The model gives float32 [32, 10] and the targets are float32 [32, 3], which do not fit", "l1_loss wants one shape"),
    Mistake("mse of ten outputs and one target", lambda: fit(linear(10), X, TARGETS, F.mse_loss), "The model gives float32 [32, 10] and the targets are float32 [32]: mse_loss wants one shape", "end the model with one output"),
]  # fmt: skip

INPUTS = [
    Mistake("float64 inputs", lambda: fit(linear(), X.double(), CLASSES), "has weights of dtype float32, and the data are float64 [32, 8]", "x.float()"),
    Mistake("float64 inputs from NumPy", lambda: train(linear(), from_samples(lambda i: (np.ones(8), 1))), "the data are float64 [4, 8]", "x.float()"),
    Mistake("ints into Linear", lambda: fit(linear(), X.long(), CLASSES), "the data are int64 [32, 8]", "nn.Embedding"),
    Mistake("bytes into Conv2d", lambda: fit(small_conv(), IMAGES.byte(), CLASSES), "Layer '0' (Conv2d) has weights of dtype float32, and the data are uint8 [32, 1, 12, 12]", "x.float() / 255"),
    Mistake("half inputs", lambda: fit(linear(), X.half(), CLASSES), "the data are float16 [32, 8]", "x.float()"),
    Mistake("a float64 model", lambda: fit(linear().double(), X, CLASSES), "has weights of dtype float64, and the data are float32", "model.float()"),
    Mistake("float64 into attention", lambda: fit(Attention(), X.view(64, 1, 8).double(), CLASSES), "Layer 'attention' (MultiheadAttention) has weights of dtype float32", "x.float()"),
    Mistake("too few features", lambda: fit(nn.Sequential(linear(16, 9), nn.ReLU(), linear(3, 16)), X, CLASSES), "Layer '0' (Linear) wants 9 features, and the data are float32 [32, 8]: 8 features", "nn.Linear(8, 16)"),
    Mistake("layers that do not fit", lambda: fit(nn.Sequential(linear(16), nn.ReLU(), linear(3, 17)), X, CLASSES), "Layer '2' (Linear) wants 17 features, and it gets float32 [32, 16]", "nn.Linear(16, 3)"),
    Mistake("a head that does not fit the convolution", lambda: fit(small_conv(flat=100), IMAGES, CLASSES), "Layer '3' (Linear) wants 100 features, and it gets float32 [32, 200]", "nn.Linear(200, 3)"),
    Mistake("images into Linear", lambda: fit(linear(3, 144), IMAGES, CLASSES), "The model (Linear) wants 144 features, and the data are float32 [32, 1, 12, 12]", "nn.Flatten()"),
    Mistake("a convolution without Flatten", lambda: fit(nn.Sequential(nn.Conv2d(1, 2, 3), linear(3, 200)), IMAGES, CLASSES), "Layer '1' (Linear) wants 200 features, and it gets float32 [32, 2, 10, 10]", "x.flatten(1)"),
    Mistake("images without a channel", lambda: fit(small_conv(), IMAGES[:, 0], CLASSES), "wants [samples, channels, height, width], and the data are float32 [32, 12, 12]: the channel is missing", "x.unsqueeze(1)"),
    Mistake("flat images into Conv2d", lambda: fit(small_conv(), IMAGES.flatten(1), CLASSES), "and the data are float32 [32, 144]: flat", "x.view(-1, 1, 12, 12)"),
    Mistake("channels last", lambda: fit(small_conv(3), torch.randn(64, 12, 12, 3), CLASSES), "and the data are float32 [32, 12, 12, 3]: they come last", "x.movedim(-1, 1)"),
    Mistake("colours into one channel", lambda: fit(small_conv(), torch.randn(64, 3, 12, 12), CLASSES), "Layer '0' (Conv2d) wants 1 channel, and the data are float32 [32, 3, 12, 12]: 3 channels", "nn.Conv2d(3, 2, ...)"),
    Mistake("a transposed convolution of other channels", lambda: fit(nn.ConvTranspose2d(3, 2, 3), IMAGES, CLASSES), "wants 3 channels", "nn.ConvTranspose2d(1, 2, ...)"),
    Mistake("features into Conv1d", lambda: fit(nn.Conv1d(8, 3, 1), X, CLASSES), "wants [samples, channels, length], and the data are float32 [32, 8]: the length is missing", "x.unsqueeze(2)"),
    Mistake("images smaller than the kernel", lambda: fit(small_conv(), IMAGES[..., :2, :2], CLASSES), "has a kernel of [3, 3], and the data are float32 [32, 1, 2, 2]: smaller", "pool less"),
    Mistake("BatchNorm of one sample", lambda: fit(nn.Sequential(linear(), nn.BatchNorm1d(3)), X[:33], CLASSES[:33]), "Layer '1' (BatchNorm1d) cannot train on one sample", "drop_last=True"),
    Mistake("BatchNorm1d of images", lambda: fit(nn.Sequential(nn.BatchNorm1d(1), nn.Flatten(), linear(3, 144)), IMAGES, CLASSES), "Layer '0' (BatchNorm1d) wants 2 or 3 dimensions", "nn.BatchNorm2d"),
    Mistake("BatchNorm of other channels", lambda: fit(nn.Sequential(linear(4), nn.BatchNorm1d(5)), X, CLASSES), "wants 5 channels, and it gets float32 [32, 4]", "nn.BatchNorm1d(4)"),
    Mistake("LayerNorm of other features", lambda: fit(nn.Sequential(nn.LayerNorm(9), linear()), X, CLASSES), "Layer '0' (LayerNorm) is for tensors that end in [9]", "nn.LayerNorm([8])"),
    Mistake("measurements into Embedding", lambda: fit(nn.Sequential(nn.Embedding(10, 1), nn.Flatten(), linear()), X, CLASSES), "Layer '0' (Embedding) wants the numbers of words", "x.long()"),
    Mistake("words that Embedding does not have", lambda: fit(nn.Sequential(nn.Embedding(7, 1), nn.Flatten(), linear(3, 5)), NUMBERS, CLASSES), "Layer '0' (Embedding) has rows for the numbers 0 to 6, and those it gets go from 0 to 9", "nn.Embedding(10, 1)"),
    Mistake("an LSTM of other features", lambda: fit(nn.LSTM(9, 4, batch_first=True), X[:, None], CLASSES), "The model (LSTM) wants 9 features", "nn.LSTM(8, 4, ...)"),
    Mistake("an LSTM in nn.Sequential", lambda: fit(nn.Sequential(nn.LSTM(8, 4, batch_first=True), linear(3, 4)), X[:, None], CLASSES), "Layer '1' (Linear) gets a tuple: LSTM before it gives (output, state)", "output, _ = self.rnn(x)"),
    Mistake("attention of other features", lambda: fit(Attention(), torch.randn(64, 5, 9), CLASSES), "Layer 'attention' (MultiheadAttention) wants 8 features", "nn.Linear(9, 8)"),
    Mistake("layers in a plain list", lambda: fit(HiddenLayers(), X, CLASSES), "A Linear outside of the model is on meta", "nn.ModuleList"),
    Mistake("a tensor on another device", lambda: fit(nn.Sequential(Net(lambda out: out.to("meta")), linear(3, 3)), X, CLASSES), "Layer '1' (Linear) is on cpu, and it gets float32 [32, 3] on meta", "device=x.device"),
    Mistake("too many samples for the memory", lambda: fit(Net(without_memory), X, CLASSES), "There is not enough memory for a mini-batch of 32 samples", "a smaller batch_size"),
    Mistake("too many samples for the GPU", lambda: fit(Net(without_device_memory), X, CLASSES), "There is not enough memory for a mini-batch of 32 samples", "a smaller batch_size"),
]  # fmt: skip

BATCHES = [
    Mistake("NumPy batches", lambda: train(linear(), [(X.numpy(), CLASSES.numpy())]), "The loader yields NumPy arrays, and the model wants tensors", "torch.from_numpy(x)"),
    Mistake("lists of numbers", lambda: train(linear(), [(X.tolist(), CLASSES)]), "The inputs are lists of numbers", "torch.tensor(inputs, dtype=torch.float32)"),
    Mistake("a list of tensors", lambda: train(linear(), [(list(X), CLASSES)]), "The inputs are 64 tensors in a list, float32 [8]", "torch.stack(inputs)"),
    Mistake("samples of unequal lengths", lambda: train(linear(), [([X[0], X[1, :5]], CLASSES[:2])]), "The inputs are 2 tensors in a list", "pad_sequence(inputs)"),
    Mistake("samples that are lists", lambda: train(linear(), from_samples(lambda i: ([1.0] * 8, 1))), "Each sample has a list of 8 numbers", "torch.tensor(x, dtype=torch.float32)"),
    Mistake("no collate function", lambda: train(linear(), loader(X, CLASSES, collate_fn=list)), "The loader yields a list of 32 samples", "Leave out collate_fn="),
    Mistake("one input too many", lambda: train(Net(), [(X, X, CLASSES)]), "The loader yields 3 items: the last is the target, the other 2 are inputs, and Net.forward(x) takes 1", "Yield (input, target)"),
    Mistake("one input too few", lambda: fit(nn.Bilinear(8, 8, 3), X, CLASSES), "The loader yields 1 input beside the target, and Bilinear.forward(input1, input2) takes 2", "as many inputs as forward takes"),
    Mistake("inputs alone", lambda: train(linear(), DataLoader(X, batch_size=32)), "input and target cannot be told apart", ""),  # type: ignore[arg-type]
    Mistake("inputs alone in a data set", lambda: train(linear(), DataLoader(TensorDataset(X), batch_size=32)), "its last element is the target, so no input is left", ""),
    Mistake("no target", lambda: train(linear(), [(X, None)]), "There are no targets (None), and cross_entropy wants some", "Yield (input, target)"),
    Mistake("dicts for a model of one argument", lambda: train(Net(), [{"input_ids": X, "labels": CLASSES}]), "Net.forward(x) has no 'input_ids', 'labels'", "targets='labels'"),
    Mistake("dicts for a model without loss function", lambda: train(Net(), [{"pixels": X}], None), "Net.forward(x) has no 'pixels'", "self.model(batch_x['pixels'])"),
    Mistake("dicts whose target is not named", lambda: train(Net(), [{"x": X, "y": CLASSES}]), "Net.forward(x) has no 'y'", "targets='y'"),
    Mistake("dicts without a target", lambda: train(Net(), [{"x": X}]), "cross_entropy does not know which entry is the target", "targets='labels'"),
    Mistake("dicts that lack an input", lambda: train(nn.Bilinear(8, 8, 3), [{"input1": X}], None), "also takes 'input2'", "Yield these as well"),
    Mistake("texts", lambda: train(linear(), [(["good", "bad"], CLASSES[:2])]), "The inputs are texts, such as 'good'", "a tokenizer"),
    Mistake("no loss function", lambda: fit(Net(), X, CLASSES, None), "No loss function was given, so the model gets the whole mini-batch", "Trainer(model, F.cross_entropy)"),
    Mistake("no loss function for nn.Sequential", lambda: fit(nn.Sequential(linear()), X, CLASSES, None), "No loss function was given", "Trainer(model, F.cross_entropy)"),
    Mistake("outputs as loss", lambda: train(linear(), DataLoader(X, batch_size=32), None), "The loss is a tensor [32, 3]", "No loss function was given"),  # type: ignore[arg-type]
    Mistake("samples of unequal shapes", lambda: train(linear(), from_samples(lambda i: (torch.ones(8 + i), 1))), "The samples of a mini-batch have unequal shapes", "collate_fn="),
    Mistake("a data set that returns nothing", lambda: train(linear(), from_samples(lambda i: None)), "A sample, or a part of it, is None", "`return`"),
    Mistake("samples that are objects", lambda: train(linear(), from_samples(lambda i: (Output(1), 1))), "The samples hold objects of class", "collate_fn="),
    Mistake("an empty data set", lambda: train(linear(), loader(X[:0], CLASSES[:0])), "The training loader gave no mini-batch", "drop_last=True"),
]  # fmt: skip

OUTPUTS = [
    Mistake("a tuple", lambda: fit(Net(lambda out: (out, out)), X, CLASSES), "The model returns (float32 [32, 3], float32 [32, 3]), and cross_entropy wants one tensor", "F.cross_entropy(out[0], y)"),
    Mistake("a tuple for mse", lambda: fit(Net(lambda out: (out, out)), X, X[:, :3], nn.MSELoss()), "MSELoss wants one tensor", "loss(out[0], y)"),
    Mistake("a dict", lambda: fit(Net(lambda out: {"logits": out}), X, CLASSES), "The model returns {'logits': float32 [32, 3]}", "F.cross_entropy(out['logits'], y)"),
    Mistake("an object", lambda: fit(Net(Output), X, CLASSES), "The model returns an Output", "F.cross_entropy(out.logits, y)"),
    Mistake("an object with a loss", lambda: train(Tokens(), [{"input_ids": NUMBERS, "labels": CLASSES}]), "The model returns an Output", "Or leave the loss out: this model computes its own"),
    Mistake("a named tuple", lambda: fit(Net(lambda out: Pairs(out, out)), X, CLASSES), "The model returns (float32 [32, 3], float32 [32, 3])", "out[0]"),
    Mistake("None", lambda: fit(Net(lambda out: None), X, CLASSES), "The model returns None, and cross_entropy wants a tensor", "`return`"),
    Mistake("None for a loss of one's own", lambda: fit(Net(lambda out: None), X, CLASSES, lambda out, y: out.mean()), "The model returns None, and the loss function wants a tensor", "`return`"),
    Mistake("None in a step", lambda: run_step(gives_none), "self.loss() got None for the model's output, and cross_entropy", "`return`"),
    Mistake("an array", lambda: fit(Net(lambda out: out.detach().numpy()), X, CLASSES), "The model returns NumPy float32 [32, 3]", "there are no gradients"),
]  # fmt: skip


def first_targets(one: Any, other: Any) -> Any:
    return F.cross_entropy(other, one)


LOSSES = [
    Mistake("a loss with swapped arguments", lambda: fit(linear(), X, CLASSES, first_targets), "cross_entropy got the targets as outputs", "The loss is called as loss(model_out, targets)"),
    Mistake("a loss with swapped arguments of a column", lambda: fit(linear(1), X, YES[:, None].float(), lambda one, other: F.binary_cross_entropy(other, one)), "binary_cross_entropy got the targets as outputs", "The loss is called as loss(model_out, targets)"),
    Mistake("a loss of one argument", lambda: fit(linear(), X, CLASSES, lambda out: out.mean()), "The loss function <lambda>(out) is called with two arguments", "def my_loss(model_out, targets)"),
    Mistake("a loss of each sample", lambda: fit(linear(), X, CLASSES, nn.CrossEntropyLoss(reduction="none")), "The loss is a tensor [32]", ".mean()"),
    Mistake("a loss by item()", lambda: fit(linear(), X, CLASSES, lambda out, y: F.cross_entropy(out, y).item()), "The loss is a float", "without .item()"),
    Mistake("a detached output", lambda: fit(Net(Tensor.detach), X, CLASSES), "The loss depends on no weight that requires a gradient", ".detach()"),
    Mistake("frozen weights", lambda: fit(frozen(), X, CLASSES), "The loss depends on no weight that requires a gradient", "All weights of the model are frozen"),
    Mistake("no_grad in a step", lambda: run_step(without_gradients), "MyTask.step: the loss depends on no weight", "torch.no_grad()"),
    Mistake("backward after self.loss", lambda: run_step(backward_after), "The gradients of this loss are computed twice", "leave loss.backward() and opt.step() out"),
    Mistake("backward before self.loss", lambda: run_step(backward_before), "The gradients of this loss are computed twice", "leave loss.backward() and opt.step() out"),
    Mistake("a state kept between mini-batches", lambda: fit(Keeping(), X, CLASSES), "The loss depends on tensors of an earlier mini-batch", "state.detach()"),
    Mistake("a change in place", lambda: fit(Net(lambda out: out.exp().add_(1)), X, CLASSES), "A tensor that the gradients need was changed in place", "x = x + y instead of x += y"),
    Mistake("a step that returns its loss", lambda: run_step(returns_loss), "MyTask.step returned a Tensor", "self.loss(model_out, batch_y) computes the loss"),
    Mistake("the tuple to the model", lambda: run_step(bare_tuple), "batch_x is always a tuple", "self.model(*batch_x)"),
    Mistake("NaN in the data", lambda: fit(linear(), torch.where(X > 2, torch.nan, X), CLASSES), "The loss is nan in epoch 1, training batch 1 of 2: ", "torch.nan_to_num(x)"),
    Mistake("NaN in the targets", lambda: fit(linear(1), X, torch.where(TARGETS > 1, torch.nan, TARGETS)[:, None], F.mse_loss), "numbers in its targets are NaN or infinite", "dropna()"),
    Mistake("a learning rate that is too high", lambda: diverging(), "weights are NaN or infinite since an earlier step", "Lower the learning rate (1e+38 now)"),
    Mistake("a logarithm of 0", lambda: fit(linear(), X, CLASSES, lambda out, y: (out * 0).log().mean()), "The loss is -inf in epoch 1, training batch 1 of 2, though its inputs, targets and weights are finite", "logarithms"),
]  # fmt: skip


def diverging() -> Any:
    model = linear()
    return fit(model, X * 100, CLASSES, opt=torch.optim.SGD(model.parameters(), lr=1e38))


ELSEWHERE = [
    Mistake("labels of the validation", lambda: fit(linear(), X, CLASSES, val_dl=loader(X, CLASSES + 1)), "The labels go from 1 to 3", "labels - 1"),
    Mistake("a test", lambda: Trainer(linear(), F.cross_entropy, show_info=False).test(loader(X, CLASSES.float())), "The labels are float32 [32]", "labels.long()"),
    Mistake("predict", lambda: Trainer(linear(3, 9), F.cross_entropy, show_info=False).predict(loader(X, CLASSES)), "wants 9 features", "nn.Linear(8, 3)"),
    Mistake("predict of arrays", lambda: Trainer(linear(), F.cross_entropy, show_info=False).predict([X.numpy()]), "The loader yields NumPy arrays", "torch.from_numpy(x)"),
    Mistake("predict of two inputs", lambda: Trainer(Net(), F.cross_entropy, show_info=False).predict([(X, X, CLASSES)]), "the other 2 are inputs, and Net.forward(x) takes 1", "prepare_data"),
    Mistake("find_lr", lambda: Trainer(linear(3, 9), F.cross_entropy, show_info=False).find_lr(loader(X, CLASSES)), "wants 9 features", "nn.Linear(8, 3)"),
]  # fmt: skip

ERRORS = [*LABELS, *INPUTS, *BATCHES, *OUTPUTS, *LOSSES, *ELSEWHERE]


# What raises nothing


def own_difference(model_out: Any, targets: Any) -> Tensor:
    return ((model_out - targets) ** 2).mean()


def forgets_loss(self: Any, batch_x: Any, batch_y: Any) -> None:
    self.model(*batch_x)


def forgets_to_step(self: Any, batch_x: Any, batch_y: Any) -> None:
    self.loss(self.model(*batch_x), batch_y, do_optimize=False)


def plain_step(self: Any, batch_x: Any, batch_y: Any) -> None:
    loss = self.loss_fn(self.model(*batch_x), batch_y)
    self.opt.zero_grad()
    loss.backward()
    self.opt.step()


def two_layers() -> nn.Sequential:
    return nn.Sequential(linear(6), nn.Tanh(), linear(3, 6))


def head_only(model: nn.Sequential) -> torch.optim.Optimizer:
    return torch.optim.SGD(model[2].parameters(), lr=0.1)


def fit_head(*, freezes: bool = False) -> Any:
    model = two_layers()
    model[0].requires_grad_(not freezes)
    return fit(model, X, CLASSES, opt=head_only(model))


def fit_halves() -> Any:
    model = two_layers()
    return fit(model, X, CLASSES, opt=[torch.optim.SGD(model[i].parameters(), 0.1) for i in (0, 2)])


class Unused(nn.Module):
    """Has a layer that takes no part in the output."""

    def __init__(self) -> None:
        super().__init__()
        self.used, self.unused = linear(), linear()

    def forward(self, x: Any) -> Any:
        return self.used(x)


def fit_used() -> Any:
    model = Unused()
    return fit(model, X, CLASSES, opt=torch.optim.SGD(model.used.parameters(), 0.1))


def fit_with_an_optimizer_of_the_step() -> Any:
    """The step itself steps an optimizer that the trainer does not know."""
    model = two_layers()
    other = torch.optim.SGD(model[0].parameters(), 0.1)

    def step(self: Any, batch_x: Any, batch_y: Any) -> None:
        self.loss(self.model(*batch_x), batch_y)
        other.step()
        other.zero_grad(set_to_none=False)

    return run_step(step, model, opt=head_only(model))


def scheduled(
    make: Callable[..., Any], sched_on: str | None = None, *, epochs: int = 4, **options: Any
) -> Any:
    """A fit of mini-batches of 32, two an epoch, whose schedule `make(opt)` makes."""
    model = linear()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = make(opt)
    given: Any = opt if sched_on is None else Optimizer(opt, scheduler, sched_on)
    return train(model, loader(X, CLASSES), opt=given, epochs=epochs, **options)


def one_cycle(total_steps: int) -> Callable[..., Any]:
    return lambda opt: schedules.OneCycleLR(opt, max_lr=0.1, total_steps=total_steps)


def step_lr(opt: Any) -> Any:
    return schedules.StepLR(opt, step_size=30)


def plateau(patience: int) -> Callable[..., Any]:
    return lambda opt: schedules.ReduceLROnPlateau(opt, patience=patience)


def chained(opt: Any) -> Any:
    return schedules.SequentialLR(opt, [step_lr(opt), schedules.ConstantLR(opt)], milestones=[2])


class StepsIt(Callback):
    """Steps a scheduler that the trainer does not know."""

    scheduler: Any = None

    def make(self, opt: Any) -> Any:
        self.scheduler = step_lr(opt)
        return self.scheduler

    def on_after_epoch(self, **others: Any) -> None:
        self.scheduler.step()


def steps_in_a_hook() -> Any:
    hook = StepsIt()
    return scheduled(hook.make, callbacks=hook)


def fit_by_epochs() -> None:
    """Steps a scheduler between fits of one epoch, and trains on at the rate it has then."""
    model = linear()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = step_lr(opt)
    trainer = Trainer(model, F.cross_entropy, opt, show_info=False, log_batch=False)
    for _ in range(2):
        trainer.fit(loader(X, CLASSES), epochs=1)
        scheduler.step()
    trainer.fit(loader(X, CLASSES), epochs=2)


def fit_one_cycle_in_parts() -> None:
    model = linear()
    opt = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer = Optimizer(opt, one_cycle(8)(opt), "step")
    trainer = Trainer(model, F.cross_entropy, optimizer, show_info=False, log_batch=False)
    for _ in range(2):
        trainer.fit(loader(X, CLASSES), epochs=2)


def validating(step: Callable[..., Any]) -> Any:
    step.__qualname__ = "MyTask.val_step"
    task = type("MyTask", (EpochTask,), {"val_step": step})(loader(X, CLASSES))
    trainer = Trainer(linear(), F.cross_entropy, epochs=2, show_info=False, log_batch=False)
    return trainer.fit(loader(X, CLASSES), val_tasks=task)


def in_a_column(model_out: Tensor, targets: Tensor) -> Tensor:
    return F.mse_loss(model_out, targets.unsqueeze(1))


def mae(preds: Tensor, targets: Tensor) -> Tensor:
    return (preds - targets).abs().mean()


def share_right(preds: Tensor, targets: Tensor) -> Tensor:
    return ((preds > 0) == targets.bool()).float().mean()


WARNINGS = [
    Mistake("softmax before cross_entropy", lambda: fit(nn.Sequential(linear(), nn.Softmax(1)), X, CLASSES), "softmax before cross_entropy, which takes the softmax itself", "Leave out the softmax at the end of the model"),
    Mistake("softmax in forward", lambda: fit(Net(lambda out: F.softmax(out, dim=1)), X, CLASSES, nn.CrossEntropyLoss()), "softmax before cross_entropy", "Leave out the softmax"),
    Mistake("softmax, then another shape", lambda: fit(Net(lambda out: out.softmax(1)[..., None]), X, CLASSES[:, None]), "softmax before cross_entropy", "Leave out the softmax"),
    Mistake("softmax before cross_entropy in a loss of one's own", lambda: fit(Net(lambda out: out.softmax(1)), X, CLASSES, lambda out, y: 0.5 * F.cross_entropy(out, y) + out.pow(2).mean()), "softmax before cross_entropy", "Leave out the softmax"),
    Mistake("sigmoid before cross_entropy", lambda: fit(Net(torch.sigmoid), X, CLASSES), "sigmoid before cross_entropy", "Leave out the sigmoid"),
    Mistake("sigmoid before bce_with_logits", lambda: fit(nn.Sequential(linear(1), nn.Sigmoid()), X, YES[:, None].float(), nn.BCEWithLogitsLoss()), "sigmoid before binary_cross_entropy_with_logits", "Leave out the sigmoid"),
    Mistake("softmax before bce_with_logits", lambda: fit(Net(lambda out: out.softmax(1)), X, F.one_hot(CLASSES).float(), nn.BCEWithLogitsLoss()), "softmax before binary_cross_entropy_with_logits", "take F.cross_entropy"),
    Mistake("softmax before nll_loss", lambda: fit(nn.Sequential(linear(), nn.Softmax(1)), X, CLASSES, nn.NLLLoss()), "softmax before nll_loss", "nn.LogSoftmax(dim=1)"),
    Mistake("raw outputs for nll_loss", lambda: fit(linear(), X, CLASSES, F.nll_loss), "nll_loss wants logarithms of probabilities", "F.cross_entropy"),
    Mistake("one column for cross_entropy", lambda: fit(Net(lambda out: out[:, 0]), X, YES.float()), "cross_entropy takes outputs [32] for one sample with 32 classes", "F.binary_cross_entropy_with_logits"),
    Mistake("a column minus a row", lambda: fit(linear(1), X, TARGETS, own_difference), "The model gives [32, 1] and the targets are [32]: in the loss, their difference is [32, 32]", "targets.unsqueeze(1)"),
    Mistake("a row minus a column", lambda: fit(Net(lambda out: out[:, 0]), X, TARGETS[:, None], lambda out, y: (y - out).abs().mean()), "The model gives [32] and the targets are [32, 1]", "targets.squeeze(1)"),
    Mistake("scores for accuracy", lambda: fit(linear(1), X, YES[:, None].float(), nn.BCEWithLogitsLoss(), metrics=accuracy), "read as probabilities of class 1", "apply torch.sigmoid"),
    Mistake("a metric of a column and a row", lambda: fit(linear(1), X, TARGETS, in_a_column, metrics=mae), "The model gives [32, 1] and the targets are [32]: in the metric 'mae' they become [32, 32]", "rename('mae')(lambda preds, targets: mae(preds.squeeze(1), targets))"),
    Mistake("a metric of a row and a column", lambda: fit(Net(lambda out: out[:, 0]), X, TARGETS[:, None], lambda out, y: F.mse_loss(out[:, None], y), metrics=mae, metric_patch="mean"), "The model gives [32] and the targets are [32, 1]: in the metric 'mae'", "mae(preds, targets.squeeze(1))"),
    Mistake("a metric that compares a column and a row", lambda: fit(linear(1), X, YES, lambda out, y: F.binary_cross_entropy_with_logits(out[:, 0], y.float()), metrics=share_right), "in the metric 'share_right' they become [32, 32]", "preds.squeeze(1), targets"),
    Mistake("an empty validation set", lambda: fit(linear(), X, CLASSES, val_dl=loader(X[:0], CLASSES[:0])), "The validation loader gave no mini-batch", "drop_last=True"),
    Mistake("a step that forgets the loss", lambda: run_step(forgets_loss), "MyTask.step returned without a backward pass", "self.loss(model_out, batch_y)"),
    Mistake("a step that never steps", lambda: run_step(forgets_to_step), "MyTask.step made gradients in 2 mini-batches and no optimizer step", "self.optimize()"),
    Mistake("a plain step of PyTorch", lambda: run_step(plain_step), "MyTask.step trained the weights without self.backward()", "self.backward(value) and self.optimize()"),
    Mistake("an optimizer of the head alone", fit_head, "no optimizer trains them: 0.weight, 0.bias.", "requires_grad_(False)"),
    Mistake("a scheduler that was not given", lambda: scheduled(step_lr), "A scheduler was made for this SGD and is not given to the trainer", "opt=Optimizer(opt, scheduler, sched_on='epoch')"),
    Mistake("a plateau of steps", lambda: scheduled(plateau(1), "step"), "ReduceLROnPlateau follows the loss of each optimizer step, and patience=1", "sched_on='epoch'"),
    Mistake("a validation step that forgets the loss", lambda: validating(forgets_loss), "MyTask.val_step recorded neither a loss nor a metric", "self.loss(model_out, batch_y)"),
]  # fmt: skip


# What looks like one of these and is right


class Pair(nn.Module):
    """Takes two inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(16, 3)

    def forward(self, left: Any, right: Any) -> Any:
        return self.layer(torch.cat([left, right], 1))


class ByHand(EpochTask):
    """Makes the backward pass and the step by itself, as a plain loop does."""

    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        loss = self.loss_fn(self.model(*batch_x), batch_y)
        self.backward(loss)
        self.optimize()
        self.do_metric(loss)


class Collecting(EpochTask):
    """Keeps the outputs of a test, and records nothing."""

    def test_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> None:
        self.model(*batch_x)


class Mixture(nn.Module):
    """Mixes two softmaxes, and gives logarithms of probabilities."""

    def __init__(self) -> None:
        super().__init__()
        self.experts = nn.ModuleList([nn.Linear(8, 3), nn.Linear(8, 3)])

    def forward(self, x: Any) -> Any:
        return sum(expert(x).softmax(1) for expert in self.experts).div(2).log()


class Gated(nn.Module):
    """Has a softmax and a sigmoid in the middle."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.value, self.head = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Any) -> Any:
        return self.head(self.gate(x).softmax(1) * self.value(x).sigmoid())


class WithLoss(Net):
    """Computes its loss."""

    def forward(self, x: Any, y: Any = None) -> Any:
        return {"loss": F.cross_entropy(self.layer(x), y)}


LOSS = nn.CrossEntropyLoss()


def of_scores(preds: Tensor, targets: Tensor) -> Any:
    return accuracy(preds.sigmoid(), targets)


class Twice:
    """A loader that can be walked again and again."""

    def __iter__(self) -> Iterator[Any]:
        return iter([(X, CLASSES), (X, CLASSES)])


def all_pairs(model_out: Tensor, targets: Tensor) -> Tensor:
    """A ranking loss: each output against each other one."""
    order = (targets[:, None] > targets).float()
    return (F.softplus(model_out.T - model_out) * order).mean()


def energy_distance(model_out: Tensor, targets: Tensor) -> Tensor:
    """Outputs against all targets, on purpose."""
    outputs = model_out.squeeze(1)
    own = (outputs[:, None] - outputs).abs().mean()
    return (outputs[:, None] - targets).abs().mean() - 0.5 * own


class Similarities(Net):
    """Gives how alike each two samples of a mini-batch are."""

    def forward(self, x: Any) -> Any:
        return self.layer(x) @ self.layer(x).T


def with_penalty(model_out: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model_out, targets) + model_out.softmax(1).pow(2).mean()


def entropy(model_out: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(model_out, targets) + (model_out.softmax(1).log() * 0.1).mean()


def distilled(model_out: Tensor, targets: Tensor) -> Tensor:
    return F.kl_div(model_out.log_softmax(1), targets.softmax(1), reduction="batchmean")


SOUND: list[tuple[str, Callable[[], Any]]] = [
    ("classes", lambda: fit(linear(), X, CLASSES)),
    ("bytes as labels", lambda: fit(linear(), X, CLASSES.byte())),
    ("probabilities as labels", lambda: fit(linear(), X, torch.full((64, 3), 1 / 3))),
    ("labels to leave out", lambda: fit(linear(), X, torch.where(CLASSES > 0, CLASSES, -100))),
    ("labels to leave out by number", lambda: fit(linear(), X, CLASSES - 1, nn.CrossEntropyLoss(ignore_index=-1))),
    ("log_softmax and nll_loss", lambda: fit(nn.Sequential(linear(), nn.LogSoftmax(1)), X, CLASSES, F.nll_loss)),
    ("log_softmax and cross_entropy", lambda: fit(nn.Sequential(linear(), nn.LogSoftmax(1)), X, CLASSES)),
    ("a mixture of softmaxes", lambda: fit(Mixture(), X, CLASSES, F.nll_loss)),
    ("softmax and sigmoid within", lambda: fit(Gated(), X, CLASSES)),
    ("softmax in a penalty", lambda: fit(linear(), X, CLASSES, with_penalty)),
    ("a logarithm of softmax", lambda: fit(linear(), X, CLASSES, entropy)),
    ("distillation", lambda: fit(linear(), X, X[:, :3], distilled)),
    ("softmax and mse", lambda: fit(nn.Sequential(linear(), nn.Softmax(1)), X, F.one_hot(CLASSES).float(), F.mse_loss)),
    ("sigmoid and bce", lambda: fit(nn.Sequential(linear(1), nn.Sigmoid()), X, YES[:, None].float(), F.binary_cross_entropy)),
    ("outputs between 0 and 1 by chance", lambda: fit(Net(lambda out: out.clamp(0.2, 0.4)), X, CLASSES)),
    ("logits and bce_with_logits", lambda: fit(linear(1), X, YES[:, None].float(), nn.BCEWithLogitsLoss())),
    ("several labels a sample", lambda: fit(linear(), X, F.one_hot(CLASSES).float(), nn.BCEWithLogitsLoss())),
    ("a column and a column", lambda: fit(linear(1), X, TARGETS[:, None], F.mse_loss)),
    ("a row and a row", lambda: fit(Net(lambda out: out[:, 0]), X, TARGETS, F.mse_loss)),
    ("several numbers", lambda: fit(linear(), X, X[:, :3], nn.L1Loss())),
    ("one sample and its column", lambda: train(linear(1), [(X[:1], TARGETS[:1, None])], F.mse_loss)),
    ("each against each", lambda: fit(linear(1), X, TARGETS, all_pairs)),
    ("outputs against all targets", lambda: fit(linear(1), X, TARGETS, energy_distance)),
    ("similarities of one sample", lambda: train(Similarities(), [(X[:1], CLASSES[:1]), (X[:2], CLASSES[:2])])),
    ("a difference of as many features as samples", lambda: train(linear(8), [(X[:8], X[8:16])], own_difference)),
    ("a column of targets, squeezed in the loss", lambda: fit(linear(1), X, TARGETS, lambda out, y: own_difference(out.squeeze(1), y))),
    ("one-dimensional cross_entropy of a distribution", lambda: train(Net(lambda out: out[:, 0]), [(X, torch.full((64,), 1 / 64))])),
    ("classes of a sequence", lambda: fit(nn.Sequential(nn.Embedding(10, 4), nn.Conv1d(5, 6, 1)), NUMBERS, NUMBERS[:, :4] % 6)),
    ("two inputs", lambda: train(Pair(), [(X, X, CLASSES)])),
    ("a dict for a model that has its loss", lambda: train(WithLoss(), [{"x": X, "y": CLASSES}], None)),
    ("tuples for a loss of one's own", lambda: fit(Net(lambda out: (out, out)), X, CLASSES, lambda out, y: F.cross_entropy(out[0], y))),
    ("a loss with a further argument", lambda: fit(linear(), X, CLASSES, lambda out, y, weight=None: F.cross_entropy(out, y, weight))),
    ("steps by hand", lambda: Trainer(linear(), F.cross_entropy, epochs=2, show_info=False).fit(train_tasks=ByHand(loader(X, CLASSES)))),
    ("a test that records nothing", lambda: Trainer(linear(), F.cross_entropy, show_info=False).test(tasks=Collecting(loader(X, CLASSES)))),
    ("validation without loss", lambda: Trainer(linear(), F.cross_entropy, epochs=2, show_info=False).fit(loader(X, CLASSES), loader(X, CLASSES), do_val_loss=False)),
    ("images", lambda: fit(small_conv(), IMAGES, CLASSES)),
    ("images for images", lambda: fit(nn.Conv2d(1, 1, 1), IMAGES, IMAGES, F.mse_loss)),
    ("mended: labels by long()", lambda: fit(linear(), X, CLASSES.float(), lambda out, y: F.cross_entropy(out, y.long()))),
    ("mended: a loss object", lambda: fit(linear(), X, CLASSES.float(), lambda out, y: LOSS(out, y.long()))),
    ("mended: a column", lambda: fit(linear(), X, CLASSES[:, None].float(), lambda out, y: F.cross_entropy(out, y.squeeze(1).long()))),
    ("mended: one-hot labels", lambda: fit(linear(), X, F.one_hot(CLASSES).argmax(1))),
    ("mended: numbers of classes", lambda: fit(linear(2), X, torch.unique(YES + 5, return_inverse=True)[1])),
    ("mended: a sequence", lambda: fit(nn.Embedding(10, 4), NUMBERS, NUMBERS % 4, lambda out, y: F.cross_entropy(out.movedim(-1, 1), y))),
    ("mended: bce", lambda: fit(linear(1), X, YES, lambda out, y: F.binary_cross_entropy_with_logits(out, y.float().unsqueeze(1)))),
    ("mended: mse", lambda: fit(linear(1), X, TARGETS.double(), lambda out, y: F.mse_loss(out, y.float().unsqueeze(1)))),
    ("mended: channels last", lambda: fit(small_conv(3), torch.randn(64, 12, 12, 3).movedim(-1, 1), CLASSES)),
    ("mended: flat images", lambda: fit(small_conv(), IMAGES.flatten(1).view(-1, 1, 12, 12), CLASSES)),
    ("mended: BatchNorm of one sample", lambda: train(nn.Sequential(linear(), nn.BatchNorm1d(3)), loader(X[:33], CLASSES[:33], drop_last=True))),
    ("mended: arrays", lambda: train(linear(), loader(torch.from_numpy(X.double().numpy()).float(), torch.from_numpy(CLASSES.numpy())))),
    ("mended: dicts", lambda: train(Net(), [{"x": X, "y": CLASSES}], targets="y")),
    ("mended: an object with a loss", lambda: train(Tokens(), [{"input_ids": NUMBERS}], lambda out, y: out.logits.mean())),
    ("mended: a state", lambda: fit(Keeping(detaches=True), X, CLASSES)),
    ("mended: scores for accuracy", lambda: fit(linear(1), X, YES[:, None].float(), nn.BCEWithLogitsLoss(), metrics=of_scores)),
    ("a metric that squeezes the outputs", lambda: fit(linear(1), X, TARGETS, in_a_column, metrics=lambda preds, targets: mae(preds.squeeze(1), targets))),
    ("a metric that lifts the targets", lambda: fit(linear(1), X, TARGETS, in_a_column, metrics=lambda preds, targets: mae(preds, targets[:, None]))),
    ("a metric that subtracts the mean", lambda: fit(linear(1), X, TARGETS, in_a_column, metrics=lambda preds, targets: (preds - targets.mean()).abs().mean())),
    ("a metric through NumPy", lambda: fit(linear(1), X, TARGETS, in_a_column, metrics=lambda preds, targets: float(np.abs(preds.numpy()[:, 0] - targets.numpy()).mean()))),
    ("probabilities in a column for accuracy", lambda: fit(nn.Sequential(linear(1), nn.Sigmoid()), X, YES, lambda out, y: F.binary_cross_entropy(out[:, 0], y.float()), metrics=[accuracy, "f1"])),
    ("an optimizer of the head alone, and the rest frozen", lambda: fit_head(freezes=True)),
    ("an optimizer for each half", fit_halves),
    ("a layer without a part in the output", fit_used),
    ("an optimizer that a step keeps", fit_with_an_optimizer_of_the_step),
    ("a cycle of the fit", lambda: scheduled(one_cycle(8), "step")),
    ("a cycle of several fits", lambda: scheduled(one_cycle(20), "step")),
    ("a cycle of the fit, with accumulation", lambda: scheduled(one_cycle(4), "step", grad_accumulate=2)),
    ("a cycle of epochs", lambda: scheduled(one_cycle(4), "epoch")),
    ("a cycle in two fits", fit_one_cycle_in_parts),
    ("a plateau of epochs", lambda: scheduled(plateau(1), "epoch")),
    ("a plateau of many steps", lambda: scheduled(plateau(50), "step")),
    ("a chain of schedules", lambda: scheduled(chained, "epoch")),
    ("a scheduler that a hook steps", steps_in_a_hook),
    ("a scheduler that is stepped between fits", fit_by_epochs),
    ("a loader of one's own", lambda: train(linear(), Twice())),
]  # fmt: skip
