"""Five public models made smaller: compressed, recovered, saved, loaded, exported and timed.

python examples/public_models.py [clip|siglip|blip|grounding-dino|vit ...]    # small and untrained; default: all
python examples/public_models.py clip --full                                  # the public sizes, untrained

With weights of your own put `from_pretrained(...)` in the place of the class and its config, and batches of your own in
the place of noise.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import timm
import torch
import transformers
from torch import Tensor, nn

import snp

SMALL = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = {"vocab_size": 100, "max_position_embeddings": 16, "bos_token_id": 98, "eos_token_id": 99, "pad_token_id": 0}
PIXELS = {"image_size": 32, "patch_size": 8}


class Public(NamedTuple):
    """A public model: how it is built, small or of its public size, and a batch of so many samples of noise."""

    build: Callable[[bool], nn.Module]
    batch: Callable[[nn.Module, int], dict[str, Tensor]]


def of_two(name: str) -> Callable[[bool], nn.Module]:
    """A model of transformers with a tower for pictures and one for words."""

    def build(full: bool) -> nn.Module:
        kind, config = (getattr(transformers, f"{name}{what}") for what in ("Model", "Config"))
        text = SMALL | WORDS | ({"encoder_hidden_size": 64} if name == "Blip" else {})
        return kind(config() if full else config(text_config=text, vision_config=SMALL | PIXELS))  # type: ignore[no-any-return]

    return build


def grounding_dino(full: bool) -> nn.Module:
    """Swin for pictures, BERT for words, and a transformer for both."""
    t = transformers
    if full:
        return t.GroundingDinoModel(t.GroundingDinoConfig(backbone_config=t.SwinConfig(out_indices=[2, 3, 4])))
    sizes = {"embed_dim": 16, "depths": [2, 2, 2], "num_heads": [2, 2, 2], "window_size": 4}
    swin = t.SwinConfig(**sizes, image_size=64, patch_size=4, out_features=["stage1", "stage2", "stage3"])
    layers = {f"{part}_layers": 2 for part in ("encoder", "decoder")}
    heads = {f"{part}_attention_heads": 4 for part in ("encoder", "decoder")}
    bert = t.BertConfig(**SMALL, vocab_size=100)
    config = t.GroundingDinoConfig(
        backbone_config=swin, text_config=bert, d_model=64, **layers, **heads, encoder_ffn_dim=96, decoder_ffn_dim=96,
        num_queries=5,
    )  # fmt: skip
    return t.GroundingDinoModel(config)


def pictures_and_words(model: Any, samples: int) -> dict[str, Tensor]:
    """Noise of the sizes that the model asks for."""
    vision, text = model.config.vision_config, model.config.text_config
    words = torch.randint(1, min(98, text.vocab_size - 2), (samples, 8))
    return {"pixel_values": torch.randn(samples, 3, vision.image_size, vision.image_size), "input_ids": words}


MODELS = {
    "clip": Public(of_two("CLIP"), pictures_and_words),
    "siglip": Public(of_two("Siglip"), pictures_and_words),
    "blip": Public(of_two("Blip"), pictures_and_words),
    "grounding-dino": Public(
        grounding_dino,
        lambda model, n: {
            "pixel_values": torch.randn(n, 3, *[64 if model.config.d_model == 64 else 224] * 2),
            "input_ids": torch.randint(1, 98, (n, 6)),
        },
    ),
    "vit": Public(
        lambda full: timm.create_model("vit_base_patch16_224" if full else "vit_tiny_patch16_224", num_classes=0),
        lambda model, n: {"x": torch.randn(n, 3, 224, 224)},
    ),
}


def milliseconds(models: list[nn.Module], batch: dict[str, Tensor], rounds: int) -> list[float]:
    """Median time of a pass of each, measured in turns."""
    times: list[list[float]] = [[] for _ in models]
    with torch.inference_mode():
        for _ in range(rounds):
            for model, own in zip(models, times, strict=True):
                start = time.perf_counter()
                model(**batch)
                own.append(1000 * (time.perf_counter() - start))
    return [statistics.median(own) for own in times]


def exported(model: nn.Module, example: dict[str, Tensor], other: dict[str, Tensor]) -> str:
    """What a graph of it, made of one batch, gives for another of a different size."""
    free = {name: {0: torch.export.Dim.AUTO} for name in example}
    try:
        graph = torch.export.export(model, (), example, dynamic_shapes=free).module()
    except Exception as error:  # of many kinds: what a model does may not be one graph, compressed or not
        return f"no ({type(error).__name__})"
    with torch.no_grad():
        apart = float((first(graph(**other)) - first(model(**other))).abs().max())
    return f"{apart:.1e} apart"


def show(name: str, full: bool, folder: Path) -> None:
    """One model, all the way."""
    torch.manual_seed(0)
    build, batch = MODELS[name]
    dense = build(full).eval()
    found = snp.find(dense)
    said = ", ".join(f"{tower} ({' and '.join(view.shape.components)})" for tower, view in found.towers.items())
    print(f"{name}: {said}; {len(found.left)} parts stay whole")
    batches = [batch(dense, 2) for _ in range(4)]
    recover = snp.Recover(
        steps=1 if full else 4,
        rate=1e-4,
        batches=batches,
        outputs=lambda model, batch: {"it": first(model(**batch))},
    )
    small, _ = snp.compress(
        dense,
        "magnitude-structured-uniform-basis",
        keep=0.8,
        towers="auto",
        forward=lambda model, batch: model(**batch),
        recover=recover,
    )
    small.eval()
    loaded = snp.load(snp.save(small, folder))
    with torch.no_grad():
        same = torch.equal(*(first(model(**batches[0])) for model in (small, loaded)))
    kept = sum(p.numel() for p in small.parameters()) / sum(p.numel() for p in dense.parameters())
    before, after = milliseconds([dense, loaded], batches[0], 9)
    print(f"  {kept:.0%} of the parameters, loaded the same: {same}, {before:.1f} ms before, {after:.1f} ms after")
    print(f"  exported: {exported(loaded, batches[0], batch(dense, 3))}")


def first(output: Any) -> Tensor:
    """The first tensor that a model gives."""
    return output if isinstance(output, Tensor) else next(v for v in output.values() if isinstance(v, Tensor))


if __name__ == "__main__":
    chosen = [name for name in sys.argv[1:] if name != "--full"] or list(MODELS)
    with TemporaryDirectory() as temporary:
        for name in chosen:
            show(name, "--full" in sys.argv, Path(temporary) / name)
