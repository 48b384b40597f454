"""`snp.materialize`: a compressed model as plain maps, for inference."""

import torch
from torch import nn

from snp.compression.surgery import M, duplicate
from snp.compression.tied import TiedLinear


def materialize(model: M) -> M:
    """A copy of a compressed model for inference, whose linear maps hold their whole weights.

    Shared weights are gathered once, here: every map is a plain nn.Linear, on any device, in an exported graph, and
    whatever is written to the given model later. A map that is tied whole holds the parameters of its donor, once in
    memory; of others, shared units are stored again. The copy is in eval mode, and nothing in it is trained, as units
    that were one would part. Save the given model: a checkpoint holds each unit once.

    Needed where a model is exported, or runs elsewhere than on a CPU; on a CPU, maps keep their gathered weights by
    themselves, in eval mode and without gradients. A model that shares nothing is only copied. [ours]

    Raises:
        InputError: the model cannot be copied.
    """
    model = duplicate(model).eval()
    tied = [(name, module) for name, module in model.named_modules() if isinstance(module, TiedLinear)]
    for name, module in tied:
        model.set_submodule(name, _plain(module))
    return model.requires_grad_(False)


@torch.no_grad()
def _plain(tied: TiedLinear) -> nn.Linear:
    weight, bias = tied.effective()
    plain = nn.Linear(tied.in_features, tied.out_features, bias is not None, device="meta")
    for name, one in (("weight", weight), ("bias", bias)):
        if one is not None and not isinstance(one, nn.Parameter):
            one = nn.Parameter(one.clone(memory_format=torch.contiguous_format))
        setattr(plain, name, one)
    return plain.eval()
