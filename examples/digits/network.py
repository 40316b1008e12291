"""The example of the Lua package's README, line by line."""

from collections import OrderedDict

from torch import nn

from nnlr import learning_rate, weight_decay


def network() -> nn.Sequential:
    """Build the network: two convolutions and three linear layers, for 32x32 images.

    The first convolution is locked, the second learns slowly and its bias does not decay; all else
    learns at the base rates. Its output are log-probabilities of ten classes.
    """
    conv1 = nn.Conv2d(1, 32, kernel_size=5, padding=2)
    learning_rate(learning_rate(conv1, "weight", 0), "bias", 0)
    weight_decay(weight_decay(conv1, "weight", 0), "bias", 0)

    conv2 = nn.Conv2d(32, 48, kernel_size=5, padding=1)
    learning_rate(learning_rate(conv2, "weight", 0.1), "bias", 0.2)
    weight_decay(conv2, "bias", 0)

    return nn.Sequential(
        OrderedDict(
            conv1=conv1,  # 32 x 32 x 32
            bn1=nn.BatchNorm2d(32),
            relu1=nn.ReLU(),
            pool1=nn.MaxPool2d(2),  # 32 x 16 x 16
            conv2=conv2,  # 48 x 14 x 14
            bn2=nn.BatchNorm2d(48),
            relu2=nn.ReLU(),
            pool2=nn.MaxPool2d(2),  # 48 x 7 x 7
            flat=nn.Flatten(),  # 2352
            full1=nn.Linear(2352, 100),
            bn3=nn.BatchNorm1d(100),
            relu3=nn.ReLU(),
            full2=nn.Linear(100, 100),
            bn4=nn.BatchNorm1d(100),
            relu4=nn.ReLU(),
            full3=nn.Linear(100, 10),
            logs=nn.LogSoftmax(dim=1),
        )
    )
