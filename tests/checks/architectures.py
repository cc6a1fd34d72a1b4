"""Small networks of well-known kinds that are sound, each with its trainer and its loaders."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

from deepepochs import EpochTask, GradClipCallback, Optimizer, Trainer

NUM = 80  # samples to train on; 16 more are for validation


def loaders(*tensors: Tensor, size: int = 8) -> tuple[DataLoader[Any], DataLoader[Any]]:
    train, val = (
        TensorDataset(*(t[part] for t in tensors)) for part in (slice(NUM), slice(NUM, 96))
    )
    return DataLoader(train, size, shuffle=True), DataLoader(val, size)


def images(channels: int = 1, size: int = 12) -> Tensor:
    return torch.rand(96, channels, size, size)


def classes_of(x: Tensor, num: int = 4) -> Tensor:
    return (x.flatten(1).mean(1).argsort().argsort() * num // len(x)).long()


def texts(length: int = 10, words: int = 20) -> Tensor:
    return torch.randint(words, (96, length))


def made(model: nn.Module, loss: Any, rate: float = 1e-3, **options: Any) -> Trainer:
    options = {"console": "off", "device": "cpu", "epochs": 3, **options}
    opt = options.pop("opt", None) or torch.optim.Adam(model.parameters(), rate)
    return Trainer(model, loss, opt, **options)


# --- images


class Block(nn.Module):
    def __init__(self, width: int, zero: bool = False) -> None:
        super().__init__()
        self.path = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU(True),
            nn.Conv2d(width, width, 3, padding=1, bias=False), nn.BatchNorm2d(width),
        )  # fmt: skip
        if zero:  # the branch begins as nothing
            nn.init.zeros_(self.path[-1].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Any:
        return F.relu(x + self.path(x))


def resnet(zero: bool = False) -> Any:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU(True),
        Block(8, zero), Block(8, zero), nn.MaxPool2d(2), Block(8, zero), Block(8, zero),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4),
    )  # fmt: skip
    x = images()
    opt = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 3)
    loss = nn.CrossEntropyLoss(label_smoothing=0.1)
    wrapped = Optimizer(opt, sched, sched_on="epoch")
    return made(model, loss, opt=wrapped, metrics="accuracy"), loaders(x, classes_of(x))


def mobilenet() -> Any:
    def separable(wide: int, out: int) -> list[nn.Module]:
        return [
            nn.Conv2d(wide, wide, 3, padding=1, groups=wide, bias=False), nn.BatchNorm2d(wide),
            nn.ReLU6(True), nn.Conv2d(wide, out, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU6(True),
        ]  # fmt: skip

    model = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.Hardswish(), *separable(8, 16),
        *separable(16, 16), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 4),
    )  # fmt: skip
    x = images(3)
    return made(model, F.cross_entropy), loaders(x, classes_of(x))


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(8, 16, 3, padding=1), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, stride=2)
        self.end = nn.Conv2d(16, 2, 1)

    def forward(self, x: Tensor) -> Any:
        shallow = self.down(x)
        return self.end(torch.cat([shallow, self.up(self.deep(shallow))], 1))


def unet() -> Any:
    x = images()
    return made(UNet(), nn.CrossEntropyLoss()), loaders(x, (x[:, 0] > 0.7).long())


class Patches(nn.Module):
    """A vision transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.cut = nn.Conv2d(1, 16, 4, stride=4)
        self.cls = nn.Parameter(torch.zeros(1, 1, 16))
        self.place = nn.Parameter(torch.randn(1, 10, 16) * 0.02)
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, norm_first=True)
        self.layers = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.end = nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Any:
        parts = self.cut(x).flatten(2).transpose(1, 2)
        parts = torch.cat([self.cls.expand(len(x), -1, -1), parts], 1) + self.place
        return self.end(self.layers(parts)[:, 0])


def vit() -> Any:
    x = images()
    model = Patches()
    opt = torch.optim.AdamW(model.parameters(), 3e-4, weight_decay=0.05)
    return made(model, F.cross_entropy, opt=opt), loaders(x, classes_of(x))


def autoencoder() -> Any:
    x = images()
    model = nn.Sequential(
        nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 8), nn.ReLU(),
        nn.Linear(8, 144), nn.Sigmoid(), nn.Unflatten(1, (1, 12, 12)),
    )  # fmt: skip
    return made(model, F.binary_cross_entropy), loaders(x, x)


# --- tables


def mlp() -> Any:
    model = nn.Sequential(
        nn.Linear(10, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3),
        nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 1),
    )  # fmt: skip
    x = torch.randn(96, 10)
    clip = GradClipCallback(1.0, norm_type=2)
    y = x[:, :1] - x[:, 1:2].abs()
    return made(model, nn.MSELoss(), callbacks=clip, grad_accumulate=2), loaders(x, y)


def yes_or_no() -> Any:
    x = torch.randn(96, 10)
    y = (x[:, :1] > 1.8).float()  # few are yes
    model = nn.Sequential(nn.Linear(10, 16), nn.Tanh(), nn.Linear(16, 1))
    return made(model, nn.BCEWithLogitsLoss(pos_weight=torch.tensor([9.0]))), loaders(x, y)


# --- sequences


class LSTM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 12, padding_idx=0)
        self.lstm = nn.LSTM(12, 16, 2, batch_first=True, bidirectional=True, dropout=0.1)
        self.end = nn.Linear(32, 2)

    def forward(self, x: Tensor) -> Any:
        return self.end(self.lstm(self.words(x))[0].mean(1))


def lstm() -> Any:
    x = texts()
    return made(LSTM(), F.cross_entropy), loaders(x, (x > 10).float().mean(1).round().long())


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(10, 16)
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, 2)
        self.end = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Any:
        out = self.words(x) + self.places(torch.arange(x.shape[1]))
        return self.end(self.layers(out).mean(1))


def encoder() -> Any:
    x = texts()
    return made(Encoder(), F.cross_entropy), loaders(x, classes_of(x.float(), 3))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm, self.take, self.give = nn.LayerNorm(16), nn.Linear(16, 48), nn.Linear(16, 16)
        self.mlp = nn.Sequential(
            nn.LayerNorm(16), nn.Linear(16, 64), nn.GELU(), nn.Linear(64, 16), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Any:
        q, k, v = (
            t.unflatten(-1, (2, 8)).transpose(1, 2) for t in self.take(self.norm(x)).chunk(3, -1)
        )
        share = 0.1 if self.training else 0.0
        seen = F.scaled_dot_product_attention(q, k, v, is_causal=True, dropout_p=share)
        x = x + self.give(seen.transpose(1, 2).flatten(2))
        return x + self.mlp(x)


class GPT(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(20, 16), nn.Embedding(9, 16)
        self.layers, self.norm = nn.Sequential(Attention(), Attention()), nn.LayerNorm(16)
        self.end = nn.Linear(16, 20, bias=False)
        nn.init.normal_(self.words.weight, std=0.02)
        self.end.weight = self.words.weight  # tied

    def forward(self, x: Tensor) -> Any:
        out = self.words(x) + self.places(torch.arange(x.shape[1]))
        return self.end(self.norm(self.layers(out))).movedim(-1, 1)


def gpt() -> Any:
    model, x = GPT(), texts()
    opt = torch.optim.AdamW(model.parameters(), 1e-3)
    warm = torch.optim.lr_scheduler.LambdaLR(opt, lambda step: min(1.0, step / 10))
    train, val = loaders(x[:, :-1], x[:, 1:])
    wrapped = Optimizer(opt, warm, sched_on="step")
    return made(model, F.cross_entropy, opt=wrapped, callbacks=GradClipCallback(1.0, 2)), (
        train,
        val,
    )


class Forecast(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.gru, self.end = nn.GRU(1, 16, batch_first=True), nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Any:
        return self.end(self.gru(x)[0][:, -1])


def forecast() -> Any:
    """A series in its order, which is not shuffled."""
    wave = torch.sin(torch.arange(96 + 12) / 3.0)[:, None]
    x = torch.stack([wave[start : start + 12] for start in range(96)])
    y = torch.stack([wave[start + 11] for start in range(96)]) * 0.9
    data = TensorDataset(x[:80], y[:80])
    return made(Forecast(), nn.MSELoss()), (DataLoader(data, 8), None)


# --- with steps of their own


class VAE(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.mean, self.spread = nn.Linear(144, 32), nn.Linear(32, 4), nn.Linear(32, 4)
        self.back = nn.Sequential(nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 144))

    def forward(self, x: Tensor) -> Any:
        hidden = self.body(x.flatten(1)).relu()
        mean, log_var = self.mean(hidden), self.spread(hidden)
        code = mean + torch.randn_like(mean) * (0.5 * log_var).exp()
        return self.back(code), mean, log_var


def elbo(out: Any, y: Tensor) -> Tensor:
    decoded, mean, log_var = out
    fits = F.binary_cross_entropy_with_logits(decoded, y.flatten(1), reduction="sum")
    return (fits - 0.5 * (1 + log_var - mean**2 - log_var.exp()).sum()) / len(y)


def vae() -> Any:
    x = images()
    return made(VAE(), elbo), loaders(x, x)


class GAN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.make = nn.Sequential(nn.Linear(4, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8))
        self.judge = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))


class Contest(EpochTask):
    def train_step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        model, (real,) = self.model, batch_x
        made = model.make(torch.randn(len(real), 4))
        of_real, of_made = model.judge(real), model.judge(made.detach())
        self.backward(F.softplus(-of_real).mean() + F.softplus(of_made).mean())
        self.optimize(1)
        loss = F.softplus(-model.judge(made)).mean()
        self.backward(loss)
        self.optimize(0)
        self.do_metric(loss)


def gan() -> Any:
    model = GAN()
    opts = [torch.optim.Adam(part.parameters(), 2e-4) for part in (model.make, model.judge)]
    trainer = made(model, None, opt=opts)
    data = DataLoader(TensorDataset(torch.randn(80, 8)), 8, shuffle=True)
    return trainer, {"train_tasks": Contest(data)}


class LowRank(nn.Module):
    """A frozen layer, with a change of low rank that begins as nothing (LoRA)."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(10, 10).requires_grad_(False)
        self.a, self.b = nn.Linear(10, 2, bias=False), nn.Linear(2, 10, bias=False)
        nn.init.zeros_(self.b.weight)
        self.end = nn.Linear(10, 3).requires_grad_(False)

    def forward(self, x: Tensor) -> Any:
        return self.end((self.layer(x) + self.b(self.a(x))).relu())


def lora() -> Any:
    model, x = LowRank(), torch.randn(96, 10)
    opt = torch.optim.AdamW([w for w in model.parameters() if w.requires_grad], 1e-3)
    return made(model, F.cross_entropy, opt=opt), loaders(x, x[:, :3].argmax(1))


class Pairs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 8))

    def forward(self, x: Tensor, other: Tensor) -> Any:
        return F.normalize(self.net(x)) @ F.normalize(self.net(other)).T / 0.5


def contrastive() -> Any:
    x = torch.randn(96, 10)
    data = loaders(x, x + 0.1 * torch.randn_like(x), torch.zeros(96))

    def loss(out: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(out, torch.arange(len(out)))

    return made(Pairs(), loss), data


class Noise(nn.Module):
    """Predicts the noise that was added (diffusion); its last layer begins as 0."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(11, 64), nn.SiLU(), nn.Linear(64, 10))
        nn.init.zeros_(self.net[2].weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Any:
        time, noise = torch.rand(len(x), 1), torch.randn_like(x)
        mixed = x * (1 - time).sqrt() + noise * time.sqrt()
        return self.net(torch.cat([mixed, time], 1)) - noise


def diffusion() -> Any:
    x = torch.randn(96, 10) * 0.1 + 1
    return made(Noise(), lambda out, y: (out**2).mean()), loaders(x, x)


def deep_relu() -> Any:
    """Twelve layers, with the initialization of He."""
    layers = [layer for _ in range(12) for layer in (nn.Linear(16, 16), nn.ReLU())]
    model = nn.Sequential(nn.Linear(10, 16), nn.ReLU(), *layers, nn.Linear(16, 3))
    for layer in model[:-1]:
        if isinstance(layer, nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    x = torch.randn(96, 10)
    return made(model, F.cross_entropy), loaders(x, x[:, :3].argmax(1))


class Two(nn.Module):
    """Two heads for two tasks that are trained in turn."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(10, 16), nn.ReLU())
        self.kind, self.size = nn.Linear(16, 3), nn.Linear(16, 1)


class Kind(EpochTask):
    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        self.loss(self.model.kind(self.model.body(*batch_x)), batch_y)


class Size(EpochTask):
    def step(self, batch_x: Any, batch_y: Any, **step_args: Any) -> Any:
        out = self.model.size(self.model.body(*batch_x))
        value = F.mse_loss(out, batch_y)
        self.backward(value)
        self.optimize()
        self.do_metric(value)


def two_tasks() -> Any:
    x = torch.randn(96, 10)
    kinds, sizes = loaders(x, x[:, :3].argmax(1)), loaders(x, x[:, :1])
    trainer = made(Two(), F.cross_entropy)
    tasks = [Kind(kinds[0]), Size(sizes[0])]
    return trainer, {"train_tasks": tasks, "val_tasks": Kind(kinds[1])}


def bert() -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    config = BertConfig(
        vocab_size=20, hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=16, num_labels=2,
    )  # fmt: skip
    x = texts()
    rows = [
        {"input_ids": row, "attention_mask": torch.ones_like(row), "labels": label}
        for row, label in zip(x, (x.float().mean(1) > 9.5).long(), strict=True)
    ]
    data = DataLoader(rows[:NUM], 8, shuffle=True), DataLoader(rows[NUM:], 8)  # type: ignore[arg-type]
    model = BertForSequenceClassification(config)
    return made(model, None, opt=torch.optim.AdamW(model.parameters(), 5e-5)), data


def gpt2() -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel

    model = GPT2LMHeadModel(
        GPT2Config(vocab_size=20, n_embd=16, n_layer=2, n_head=2, n_positions=16)
    )
    rows = [{"input_ids": row, "labels": row} for row in texts()]
    return made(model, None), (DataLoader(rows, 8, shuffle=True), None)  # type: ignore[arg-type]


ARCHITECTURES = {
    "resnet": resnet, "resnet with branches that begin as 0": lambda: resnet(zero=True),
    "mobilenet": mobilenet, "unet": unet, "vit": vit, "autoencoder": autoencoder, "mlp": mlp,
    "yes or no": yes_or_no, "lstm": lstm, "encoder": encoder, "gpt": gpt, "forecast": forecast,
    "vae": vae, "gan": gan, "lora": lora, "contrastive": contrastive, "diffusion": diffusion,
    "deep relu": deep_relu, "two tasks": two_tasks, "bert": bert, "gpt2": gpt2,
}  # fmt: skip
