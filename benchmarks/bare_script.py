"""A script without a framework: ``python benchmarks/bare_script.py FOLDER BATCH_SIZE EPOCHS``.

It loads MNIST by torchvision into one tensor, trains, validates after each epoch, and tests. It
measures only loss and accuracy, and saves nothing. It is the peer of a whole command.
"""

import sys

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.datasets import MNIST


def evaluate(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    model.eval()
    with torch.no_grad():
        parts = zip(images.split(1000), labels.split(1000), strict=True)
        correct = sum(int((model(x).argmax(1) == y).sum()) for x, y in parts)
    model.train()
    return correct / len(labels)


def main(root: str, batch_size: int, epochs: int) -> None:
    torch.manual_seed(0)
    train, test = MNIST(root, train=True), MNIST(root, train=False)

    def images(dataset: MNIST) -> Tensor:
        return dataset.data.unsqueeze(1).float().div_(255).sub_(0.1307).div_(0.3081)

    every, labels = images(train), train.targets
    model = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(32 * 7 * 7, 10),
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for epoch in range(epochs):
        for chosen in torch.randperm(55_000).split(batch_size):
            optimizer.zero_grad()
            F.cross_entropy(model(every[chosen]), labels[chosen]).backward()
            optimizer.step()
        print(f"epoch {epoch}: {evaluate(model, every[55_000:], labels[55_000:]):.4f}")
    print(f"test: {evaluate(model, images(test), test.targets):.4f}")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
