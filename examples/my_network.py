"""A network of your own: a small residual net for 3x32x32 images, written as any PyTorch module.

    hidenseek prune --from examples/my_network.py:SmallResNet --input 3x32x32 -o mine.hns
    hidenseek export --from examples/my_network.py:SmallResNet --input 3x32x32 -o mine
    hidenseek verify mine

A class or a function that can be called without arguments, or an instance, may be named. Only the structure is taken:
weights, biases and what batch norms have learned are not, for a sign-mask network is its own random weights.
docs/networks.md says which layers there are, and what becomes of batch normalisation.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two convolutions and a shortcut, which is a convolution of its own where the shape changes."""

    def __init__(self, entering: int, leaving: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(entering, leaving, 3, stride=stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(leaving)
        self.conv2 = nn.Conv2d(leaving, leaving, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(leaving)
        self.shortcut = nn.Identity()
        if stride > 1 or entering != leaving:
            self.shortcut = nn.Sequential(
                nn.Conv2d(entering, leaving, 1, stride=stride, bias=False), nn.BatchNorm2d(leaving)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, entering, h, w) -> (n, leaving, h / stride, w / stride)."""
        main = F.relu(self.norm1(self.conv1(x)))
        main = self.norm2(self.conv2(main))
        return F.relu(main + self.shortcut(x))


class SmallResNet(nn.Module):
    """A stem and three blocks: 78 thousand weights."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(inplace=True))
        self.blocks = nn.Sequential(Block(16, 16, 1), Block(16, 32, 2), Block(32, 64, 2))
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(n, 3, 32, 32) -> logits (n, classes)."""
        return self.head(self.dropout(self.blocks(self.stem(x)).mean((2, 3))))


def small_resnet_cifar100() -> nn.Module:
    """A factory: how to name a network that takes arguments."""
    return SmallResNet(classes=100)
