"""Train a small digit reader in PyTorch and export it, with PyTorch's own answers.

    pip install torch onnx onnxscript scikit-learn
    python examples/from_pytorch/train.py

Writes into the package's examples `digits.onnx`, made by ``torch.onnx.export``, and `digits.npz`
with `x` (uint8 images of 8x8 pixels, 0 to 16), `y` (labels) and `logits`, what PyTorch computes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

FILES = Path(__file__).parents[2] / "mlferry" / "examples" / "files"


class Block(nn.Module):
    """Two convolutions with a way around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels)
        )
        self.second = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.second(nn.functional.silu(self.first(x)))


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.SiLU(),
        Block(16),
        nn.MaxPool2d(2),
        Block(16),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Linear(64, 10),
    )


def main() -> None:
    torch.manual_seed(0)
    x, y = load_digits(return_X_y=True)
    x = x.reshape(-1, 1, 8, 8).astype(np.float32)
    train_x, test_x, train_y, test_y = train_test_split(x, y, test_size=300, random_state=0)
    model = network()
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    inputs, labels = torch.from_numpy(train_x) / 16, torch.from_numpy(train_y)
    for _ in range(30):
        for part in torch.randperm(len(inputs)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(inputs[part]), labels[part]).backward()
            optimizer.step()
    model.eval()
    with torch.no_grad():
        logits = model(torch.from_numpy(test_x) / 16).numpy()
    print(f"accuracy: {(logits.argmax(axis=1) == test_y).mean():.1%}")
    torch.onnx.export(
        model, (torch.zeros(1, 1, 8, 8),), FILES / "digits.onnx", input_names=["image"],
        output_names=["logits"], external_data=False,
    )  # fmt: skip
    np.savez_compressed(
        FILES / "digits.npz", x=test_x[:, 0].astype(np.uint8), y=test_y.astype(np.uint8),
        logits=logits,
    )  # fmt: skip


if __name__ == "__main__":
    main()
