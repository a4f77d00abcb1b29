"""Images of 16 x 16 pixels whose class is a faint bar, upright or level, at a random place; and shortcuts beside it."""

import numpy as np

SIDE = 16


def bars(seed, count, shortcut, share, faint=0.9, noise=0.5):
    """(x [n, 1, 16, 16], labels ±1, attribute [n] booleans, x without the shortcut).

    `shortcut`: "patch", a bright corner on `share` of class +; "background", a bright ground on `share` of class + and on
    1 - share of class -; "none", with an attribute drawn by chance.
    """
    rng = np.random.default_rng(seed)
    y = np.repeat([1, -1], [count - count // 2, count // 2])
    clean = noise * rng.normal(size=(count, SIDE, SIDE))
    for image, label in zip(clean, y, strict=True):
        i, j = rng.integers(1, SIDE - 7), rng.integers(1, SIDE - 1)
        if label > 0:
            image[i : i + 6, j] += faint
        else:
            image[j, i : i + 6] += faint
    luck = rng.random(count)
    if shortcut == "patch":
        attribute = (y > 0) & (luck < share)
    elif shortcut == "background":
        attribute = np.where(y > 0, luck < share, luck >= share)
    else:
        attribute = luck < 0.5
    x = clean.copy()
    if shortcut == "patch":
        x[attribute, :3, :3] += 2.0
    elif shortcut == "background":
        x[attribute] += 0.8
    return x.astype("float32")[:, None], y, attribute, clean.astype("float32")[:, None]


def torch_network(seed):
    """37,697 parameters, as PyTorch draws them."""
    import torch
    from torch import nn

    torch.manual_seed(seed)
    return nn.Sequential(
        *(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
        *(nn.MaxPool2d(2), nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 1)),
    )


def train(network, x, y, weights=None, test=None, *, step_size=0.1, batch=32, epochs=200, until=0.05, seed=0, every=5):
    """A copy of `network` trained by SGD to the mean error `until`, the logits of `test` on the way, and the steps."""
    import copy

    import torch
    from torch.nn.functional import softplus

    torch.manual_seed(seed)
    network = copy.deepcopy(network)
    x, signs = torch.from_numpy(x), torch.from_numpy(np.asarray(y, np.float32))
    weights = torch.ones(len(signs)) if weights is None else torch.from_numpy(np.asarray(weights, np.float32))
    step = torch.optim.SGD(network.parameters(), step_size)
    path, steps = [], 0
    for _ in range(epochs):
        order = torch.randperm(len(signs))
        for some in order.split(batch):
            step.zero_grad()
            (weights[some] * softplus(-signs[some] * network(x[some])[:, 0])).mean().backward()
            step.step()
            steps += 1
            if test is not None and steps % every == 0:
                with torch.no_grad():
                    path.append(network(torch.from_numpy(test))[:, 0].numpy())
        with torch.no_grad():
            error = torch.sigmoid(-signs * network(x)[:, 0]).mean()
        if error < until:
            break
    return network, np.array(path), steps
