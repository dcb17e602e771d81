"""Small functions with one planted fault each: waits for a device, and tensors on the wrong one."""

from typing import Any

import torch
from torch import Tensor, nn

from tests.audit.zoo import Doubled, Losses, Zoo, vectors

FAULTY = Zoo()

# ---- host syncs, and sizes that depend on values ----


@FAULTY.add()
def reads_an_item(x: Tensor) -> Tensor:
    return x / x.abs().max().item()  # fault: sync, graph-break


@FAULTY.add()
def reads_an_item_in_a_loop(x: Tensor) -> Tensor:
    total = 0.0
    for i in range(3):
        total += x[i].item()  # fault: sync, graph-break
    return x * total


@FAULTY.add()
def branches_on_a_value(x: Tensor) -> Tensor:
    if x.sum() > 0:  # fault: sync, graph-break, recompile
        return x + 1
    return x - 1


@FAULTY.add(vectors(3, 3, learnt=False))
def reads_a_list(x: Tensor) -> Tensor:
    return x * len(x.tolist())  # fault: sync, graph-break


@FAULTY.add()
def reads_through_a_mask(x: Tensor) -> Tensor:
    return x[x > 0].sum()  # fault: dynamic-size, graph-break, recompile


@FAULTY.add(vectors(3, 3, learnt=False))
def writes_through_a_mask(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0] = x.sum()  # fault: dynamic-size, cudagraph
    return y


@FAULTY.add(vectors(3, 3, learnt=False))
def writes_a_number_through_a_mask(x: Tensor) -> Tensor:
    y = x.clone()
    y[x > 0] = 0.0  # fault: cudagraph
    return y


@FAULTY.add()
def loops_over_nonzero(x: Tensor) -> Tensor:
    rows = x.detach().gt(0).nonzero()  # fault: dynamic-size, graph-break, recompile
    return x.sum() * rows.shape[0]


@FAULTY.add(vectors(3, 3, learnt=False))
def counts_unique_values(x: Tensor) -> Tensor:
    return x * torch.unique(x.round()).numel()  # fault: dynamic-size, graph-break


@FAULTY.add(lambda: [(torch.randn(3), torch.tensor([1, 0, 2]))] * 2)
def repeats_rows(x: Tensor, counts: Tensor) -> Tensor:
    return x.repeat_interleave(counts).sum()  # fault: dynamic-size, graph-break


@FAULTY.add(lambda: [torch.randn(3, 4) for _ in range(2)])
def writes_a_number_through_a_mask_of_columns(x: Tensor) -> Tensor:
    y = x * 2
    y[:, x[0] > 0] = 0.0  # fault: cudagraph
    return y


@FAULTY.add()
def sets_one_entry_to_a_number(x: Tensor) -> Tensor:
    y = x * 2
    y[0] = 0.0  # fault: sync
    return y


@FAULTY.add(lambda: [(torch.randn(4, requires_grad=True), torch.tensor([2, 0]))] * 2)
def sets_chosen_entries_to_a_number(x: Tensor, chosen: Tensor) -> Tensor:
    y = x * 2
    y[chosen] = 0.0  # fault: sync
    return y


@FAULTY.add()
def writes_a_number_of_the_host_by_an_index(x: Tensor) -> Tensor:
    y, zero = x * 2, torch.tensor(0.0)
    y[torch.arange(2, device=x.device)] = zero  # fault: sync
    return y


@FAULTY.add()
def chooses_a_number_of_the_host(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.tensor(0.0))  # fault: sync


@FAULTY.add()
def fills_a_mask_with_a_value_of_the_device(x: Tensor) -> Tensor:
    return x.masked_fill(x > 0, x.detach().min())  # fault: sync


@FAULTY.add(vectors(3, 3, learnt=False))
def fills_entries_with_a_value_of_the_device(x: Tensor) -> Tensor:
    return x.index_fill(0, x.argsort()[:1], x.min())  # fault: sync


@FAULTY.add(lambda: [torch.eye(3) + 1 for _ in range(2)])
def asks_for_errors_of_an_inverse(a: Tensor) -> Tensor:
    return torch.linalg.inv_ex(a, check_errors=True)[0]  # fault: sync


@FAULTY.add(lambda: [(torch.randn(3), torch.rand(3))] * 2)
def draws_with_deviations(mean: Tensor, deviations: Tensor) -> Tensor:
    return torch.normal(mean, deviations)  # fault: sync


@FAULTY.add(lambda: [(torch.randn(3), torch.tensor(1))] * 2)
def selects_by_a_number_of_the_device(x: Tensor, place: Tensor) -> Tensor:
    return x[place]  # fault: sync


@FAULTY.add(vectors(3, 3, learnt=False))
def chooses_with_cond(x: Tensor) -> Tensor:
    return torch.cond(x.sum() > 0, lambda a: a.sin(), lambda a: a.cos(), (x,))  # fault: sync


@FAULTY.add(vectors(3, 3, learnt=False))
def chooses_with_cond_in_a_low_precision(x: Tensor) -> Tensor:
    y = torch.cond(x.sum() > 0, lambda a: a.sin(), lambda a: a.cos(), (x,))  # fault: sync
    return y.half().float()


class _ReadsBackward(Doubled):
    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return gradients[0] / gradients[0].norm().item()  # fault: sync, graph-break


@FAULTY.add()
def reads_an_item_in_the_backward(x: Tensor) -> Tensor:
    return _ReadsBackward.apply(x.sin())


@FAULTY.add(like="reads_an_item_in_the_backward")
def hides_a_backward_in_a_dataclass(x: Tensor) -> Losses:
    return Losses(_ReadsBackward.apply(x.sin()).sum(), {})


@FAULTY.add(lambda: [(torch.eye(3) + 1, torch.randn(3)) for _ in range(3)])
def solves_a_system(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.solve(a, b)  # fault: sync


@FAULTY.add(vectors(3, 3, 3, learnt=False))
def formats_a_value(x: Tensor) -> Tensor:
    text = f"{x.sum():9.3f}"  # fault: sync
    return x * len(text)  # fault: graph-break


def _scale_by_norm(gradient: Tensor) -> Tensor:
    return gradient / float(gradient.norm())  # fault: sync


@FAULTY.add()
class ReadsInAHookOfAParameter(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)
        self.layer.weight.register_hook(_scale_by_norm)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


# ---- tensors on the wrong device ----


@FAULTY.add()
def makes_zeros_on_the_host(x: Tensor) -> Tensor:
    bias = torch.zeros(3)
    return x + bias  # fault: device


@FAULTY.add(vectors(3, 3, learnt=False))
def adds_up_in_a_number_of_the_host(x: Tensor) -> Tensor:
    loss = torch.tensor(0.0)
    for row in x:
        loss += row  # fault: device
    return loss


@FAULTY.add(vectors(3, 3, learnt=False))
def writes_to_an_out_of_the_host(x: Tensor) -> Tensor:
    best = torch.tensor(0.0)
    torch.maximum(best, x.max(), out=best)  # fault: device
    return best * 2


@FAULTY.add()
def clamps_to_a_number_of_the_host(x: Tensor) -> Tensor:
    return x.clamp(min=torch.tensor(0.0))  # fault: device


@FAULTY.add()
def compares_with_a_number_of_the_host(x: Tensor) -> Tensor:
    return nn.functional.mse_loss(x.mean(), torch.tensor(0.0))  # fault: device


@FAULTY.add()
def mixes_with_a_number_of_the_host(x: Tensor) -> Tensor:
    return torch.lerp(x, torch.tensor(1.0), 0.5)  # fault: device


@FAULTY.add()
def stacks_a_number_of_the_host(x: Tensor) -> Tensor:
    return torch.stack([x.mean(), torch.tensor(0.0)]).sum()  # fault: device


@FAULTY.add()
def has_its_label_on_the_host(x: Tensor) -> Tensor:
    return nn.functional.cross_entropy(x, torch.tensor(1))  # fault: device


@FAULTY.add()
def gathers_by_an_index_of_the_host(x: Tensor) -> Tensor:
    return x.gather(0, torch.tensor(1))  # fault: device


@FAULTY.add(lambda: [torch.randn(4, 3, requires_grad=True)] * 2)
def embeds_an_index_of_the_host(x: Tensor) -> Tensor:
    return nn.functional.embedding(torch.tensor(1), x)  # fault: device


@FAULTY.add()
class KeepsATensorAsAPlainAttribute(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weights = torch.tensor([0.5, 1.0, 2.0])

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weights  # fault: device


@FAULTY.add()
def copies_a_constant_on_every_call(x: Tensor) -> Tensor:
    return x * torch.tensor([1.0, 2.0, 3.0], device=x.device)  # fault: sync


@FAULTY.add(vectors(3, 3, learnt=False))
def makes_a_tensor_of_values(x: Tensor) -> Tensor:
    return x * torch.tensor([x.sum(), x.max()], device=x.device).sum()  # fault: sync


@FAULTY.add()
def copies_values_into_a_new_tensor(x: Tensor) -> Tensor:
    return x * x.new_tensor([1.0, 2.0, 3.0])  # fault: sync
