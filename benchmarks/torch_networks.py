"""The networks of torch_step.py: ResNets for small and for large images, under the names of torchvision's."""

import torch.nn.functional as F
from torch import nn

DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}  # blocks in each stage of a network for large images


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut: zeros as the missing channels (option A), or a 1x1 convolution (B)."""

    def __init__(self, inputs, outputs, stride, projects=False):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.missing = stride, outputs - inputs
        if projects and self.missing:
            projection = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(outputs))

    def forward(self, x):
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = self.bn2(self.conv2(y))
        if hasattr(self, "downsample"):
            x = self.downsample(x)
        elif self.missing:
            side = self.missing // 2
            x = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, side, side))
        return F.relu(y.add_(x), inplace=True)


class Backbone(nn.Module):
    """Images [B, 3, H, W] give features [B, D]: the CIFAR ResNet (`large` false, D = 4 * width) or the ResNet of basic
    blocks (D = 8 * width)."""

    def __init__(self, large, depth, width):
        super().__init__()
        size, stride = (7, 2) if large else (3, 1)
        self.conv1 = nn.Conv2d(3, width, size, stride, size // 2, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.large, inputs = large, width
        self.blocks = DEPTHS[depth] if large else ((depth - 2) // 6,) * 3
        for stage, blocks in enumerate(self.blocks):
            outputs = width * 2**stage
            first = Block(inputs, outputs, 2 if stage else 1, large)
            rest = [Block(outputs, outputs, 1) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage + 1}", nn.Sequential(first, *rest))
            inputs = outputs
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, nonlinearity="relu")

    def forward(self, x):
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        if self.large:
            x = F.max_pool2d(x, 3, 2, 1)
        for stage in range(len(self.blocks)):
            x = getattr(self, f"layer{stage + 1}")(x)
        return x.mean((2, 3))
