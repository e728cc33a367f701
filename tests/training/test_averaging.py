"""The moving average of weights, in models whose weights are tied too."""

import torch
from torch import nn

from perceiver_io.training.averaging import AveragedWeights


def test_tied_weights_have_their_average_within_the_block_and_their_own_after_it() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    first = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    average = AveragedWeights(model, 0.5)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    average.update(100)
    last = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for _ in range(2):
        with average.in_place():
            for name, tensor in model.state_dict().items():
                torch.testing.assert_close(tensor, first[name] + 0.5)
        assert all(torch.equal(tensor, last[name]) for name, tensor in model.state_dict().items())
