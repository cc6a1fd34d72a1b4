"""The digits with a loop written by hand, checkpoints as PyTorch's tutorial saves them."""

from pathlib import Path
from typing import Any

from common import EPOCHS, digits, loss_fn, mlp

# begin: train
import torch
from torch.optim import Adam
from tqdm import tqdm


def evaluate(model: Any, loader: Any) -> tuple[float, float]:
    model.eval()
    total, right, count = 0.0, 0, 0
    with torch.no_grad():
        for x, y in loader:
            out = model(x)
            total += loss_fn(out, y).item() * len(y)
            right += (out.argmax(1) == y).sum().item()
            count += len(y)
    return total / count, right / count


def train() -> float:
    train_dl, val_dl, test_dl = digits()
    model = mlp()
    opt = Adam(model.parameters(), lr=1e-3)
    for epoch in range(EPOCHS):
        model.train()
        total, right, count = 0.0, 0, 0
        bar = tqdm(train_dl, desc=f"epoch {epoch + 1}")
        for x, y in bar:
            opt.zero_grad()
            out = model(x)
            loss = loss_fn(out, y)
            loss.backward()
            opt.step()
            total += loss.item() * len(y)
            right += (out.argmax(1) == y).sum().item()
            count += len(y)
            bar.set_postfix(loss=total / count, accuracy=right / count)
        val_loss, val_accuracy = evaluate(model, val_dl)
        print(
            f"epoch {epoch + 1}: loss {total / count:.4f}, accuracy {right / count:.4f}, "
            f"val_loss {val_loss:.4f}, val_accuracy {val_accuracy:.4f}"
        )
    return evaluate(model, test_dl)[1]


# end


# begin: resume
def train_and_resume() -> Any:
    train_dl, val_dl, test_dl = digits()
    model = mlp()
    opt = Adam(model.parameters(), lr=1e-3)
    path, start = Path("checkpoint.pt"), 0
    if path.exists():
        state = torch.load(path)
        model.load_state_dict(state["model"])
        opt.load_state_dict(state["opt"])
        start = state["epoch"]
    for epoch in range(start, EPOCHS):
        model.train()
        for x, y in train_dl:
            opt.zero_grad()
            loss = loss_fn(model(x), y)
            loss.backward()
            opt.step()
        state = {"model": model.state_dict(), "opt": opt.state_dict(), "epoch": epoch + 1}
        torch.save(state, path)
    return model


# end
