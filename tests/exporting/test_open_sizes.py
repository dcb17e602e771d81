"""Graphs of an open image size hold for every size, whatever size they were traced with."""

import pytest
import torch
from torch import nn
from torch.export import Dim

from compiled_loss.terms.classification import softplus_sum
from compiled_loss.torch_private import quiet


class Sums(nn.Module):
    """`softplus_sum` of a map."""

    def forward(self, x):
        return softplus_sum(x.flatten(2))


@pytest.mark.parametrize("traced", [(2, 3), (5, 6), (6, 8)])
def test_sums_over_groups_of_logits_hold_for_any_number_of_groups(traced):
    shapes = ({2: Dim("h", min=2), 3: Dim("w", min=2)},)
    with quiet():
        module = torch.export.export(Sums(), (torch.zeros(2, 3, *traced),), dynamic_shapes=shapes).module()
    for rows, columns in ((2, 2), (3, 5), (4, 4), (3, 11), (4, 8), (9, 9)):
        x = torch.randn(2, 3, rows, columns)
        torch.testing.assert_close(module(x), softplus_sum(x.flatten(2)))
