"""Compress a model of your own in three ways: from its weights, from data, and while it trains.

python examples/compress_a_model.py
"""

import torch
from torch import Tensor, nn
from transformers import CLIPConfig, CLIPModel

import snp

SIZES = {"hidden_size": 64, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 4}
TOWERS = {"vision": "vision_model", "text": "text_model"}
"""Where the transformers are; the first lends its weights to the other."""


def model() -> CLIPModel:
    """A small CLIP that has learned nothing; yours may be CLIPModel.from_pretrained(...)."""
    torch.manual_seed(0)
    vision = {**SIZES, "image_size": 32, "patch_size": 8}
    text = {**SIZES, "vocab_size": 100, "max_position_embeddings": 16, "bos_token_id": 98, "eos_token_id": 99}
    return CLIPModel(CLIPConfig(vision_config=vision, text_config=text, projection_dim=32))


def batches(number: int) -> list[dict[str, Tensor]]:
    """Noise, where you have pictures and captions."""
    return [{"pixel_values": torch.randn(8, 3, 32, 32), "input_ids": torch.randint(98, (8, 16))} for _ in range(number)]


def loss(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """What the model learns by, or is judged by."""
    return model(**batch, return_loss=True).loss


def main() -> None:
    """Show what each way leaves."""
    dense, data = model(), batches(4)
    how = {"forward": lambda model, batch: model(**batch), "loss": loss, "calibration": data}
    for method, options in {
        "magnitude-structured": {"towers": TOWERS, "keep": 0.7},  # whole units, from weights alone
        "multiflow": {"towers": TOWERS, "sparsity": 0.5, **how},  # single weights, from activations
        "snp": {"towers": TOWERS, "keep": 0.7, "steps": 20, **how},  # the paper's method: shares and prunes
    }.items():
        small, plan = snp.compress(dense, method, **options)
        stored = sum(p.numel() for p in small.parameters()) / dense.num_parameters()
        zero = sum(int((~mask).sum()) for mask in plan.masks.values()) / dense.num_parameters()
        print(f"{method:22} stores {stored:4.0%} of the parameters, {zero:4.0%} are zero, {len(plan.shares)} shares")
    print("keep is of all parameters; sparsity is of the linear maps alone, which unstructured methods zero")


if __name__ == "__main__":
    main()
