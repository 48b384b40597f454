"""Public architectures, small and untrained: how each is built, and called. Data for the tests of families."""

import warnings
from collections.abc import Callable
from typing import Any

import open_clip
import timm
import torch
import transformers as T
from torch import Tensor, nn

Made = tuple[Callable[[], nn.Module], Callable[[Any], Any]]


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


SIZES = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
WORDS = {"vocab_size": 60, "bos_token_id": 58, "eos_token_id": 59, "pad_token_id": 0, "max_position_embeddings": 16}
PIXELS = {"image_size": 16, "patch_size": 4}
TIMM = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
GROUPED = SIZES | {"num_key_value_heads": 2, "vocab_size": 60}
IMAGES, LARGE = noise(2, 3, 16, 16), noise(1, 3, 64, 64)
TOKENS = torch.randint(1, 58, (2, 7), generator=torch.Generator().manual_seed(0))
SEEN = torch.tensor([[1, 1, 1, 1, 1, 0, 0], [1] * 7])
LEFT = torch.tensor([[0, 0, 1, 1, 1, 1, 1], [1] * 7])


def t(name: str, **sizes: Any) -> nn.Module:
    """Of transformers."""
    kind, config = (getattr(T, f"{name}{what}") for what in ("Model", "Config"))
    return kind(config(**sizes)).eval()  # type: ignore[no-any-return]


def two(name: str, **more: Any) -> Made:
    """A model with a tower for pictures and one for words."""
    text, extra = SIZES | WORDS | more.pop("text", {}), more

    def build() -> nn.Module:
        return t(name, text_config=text, vision_config=SIZES | PIXELS, **extra)

    return build, lambda m: m(input_ids=TOKENS, attention_mask=SEEN, pixel_values=IMAGES)


def sees(name: str, **sizes: Any) -> Made:
    """A model of pictures."""
    return lambda: t(name, **SIZES | PIXELS | sizes), lambda m: m(pixel_values=IMAGES)


def reads(name: str, mask: Tensor = SEEN, **sizes: Any) -> Made:
    """A model of words, of which only those count that are no padding."""

    def run(model: Any) -> Tensor:
        return model(input_ids=TOKENS, attention_mask=mask).last_hidden_state[mask.bool()]  # type: ignore[no-any-return]

    return lambda: t(name, **sizes), run


def of_timm(name: str, **sizes: Any) -> Made:
    return lambda: timm.create_model(name, num_classes=0, **TIMM | sizes).eval(), lambda m: m(IMAGES)


def windows(name: str) -> Made:
    sizes = {"img_size": 32, "patch_size": 4, "window_size": 4, "embed_dim": 16, "depths": (2, 2), "num_heads": (2, 4)}
    return lambda: timm.create_model(name, num_classes=0, **sizes).eval(), lambda m: m(noise(2, 3, 32, 32))


def detr() -> nn.Module:
    backbone = T.ResNetConfig(embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, out_features=["stage4"])
    own = {f"{part}_{what}": n for part in ("encoder", "decoder")
           for what, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))}  # fmt: skip
    none = {"use_timm_backbone": False, "backbone": None, "use_pretrained_backbone": False}
    return t("Detr", backbone_config=backbone, d_model=32, num_queries=5, **own, **none)


def grounding_dino() -> nn.Module:
    sizes = {"embed_dim": 16, "depths": [2] * 3, "num_heads": [2] * 3, "image_size": 64, "patch_size": 4}
    swin = T.SwinConfig(**sizes, window_size=4, out_features=["stage1", "stage2", "stage3"])
    own = {f"{part}_{what}": n for part in ("encoder", "decoder")
           for what, n in (("layers", 2), ("attention_heads", 4), ("ffn_dim", 48))}  # fmt: skip
    text = T.BertConfig(**SIZES, vocab_size=60)
    return t("GroundingDino", backbone_config=swin, text_config=text, d_model=64, num_queries=5, **own)


def bridge_tower() -> nn.Module:
    text = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    vision = {"hidden_size": 64, "num_hidden_layers": 2, **PIXELS}
    words = WORDS | {"max_position_embeddings": 24}
    return t("BridgeTower", **text, text_config=text | words, vision_config=vision)


def qwen() -> nn.Module:
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2]}
    vision = {"depth": 2, "embed_dim": 32, "hidden_size": 32, "num_heads": 4, "mlp_ratio": 2, "patch_size": 4,
              "spatial_merge_size": 2, "temporal_patch_size": 1}  # fmt: skip
    tokens = {"image_token_id": 57, "vision_start_token_id": 55, "vision_end_token_id": 56, "video_token_id": 54}
    return t("Qwen2VL", text_config=GROUPED | {"rope_parameters": rope}, vision_config=vision, **tokens)


def look(model: Any) -> Any:
    return model(
        input_ids=torch.tensor([[1, 55, 57, 57, 57, 57, 56, 2]]), pixel_values=noise(16, 48),
        image_grid_thw=torch.tensor([[1, 4, 4]]), mm_token_type_ids=torch.tensor([[0, 0, 1, 1, 1, 1, 0, 0]]),
    )  # fmt: skip


def llava() -> nn.Module:
    vision, text = T.CLIPVisionConfig(**SIZES, **PIXELS), T.LlamaConfig(**GROUPED)
    return t("Llava", vision_config=vision, text_config=text, image_token_index=59)


def siglip2() -> nn.Module:
    return t("Siglip2", text_config=SIZES | WORDS, vision_config=SIZES | {"patch_size": 4, "num_patches": 16})


def patches(model: Any) -> Any:
    seen, shapes = torch.ones(2, 16), torch.tensor([[4, 4], [4, 4]])
    return model(input_ids=TOKENS, attention_mask=SEEN, pixel_values=noise(2, 16, 48), pixel_attention_mask=seen,
                 spatial_shapes=shapes)  # fmt: skip


def of_open_clip(**text: Any) -> nn.Module:
    vision = {"image_size": 16, "patch_size": 4, "width": 32, "head_width": 8, "layers": 2, "mlp_ratio": 2.0}
    words = {"context_length": 7, "vocab_size": 60, "width": 32, "heads": 4, "layers": 2, "mlp_ratio": 2.0}
    return open_clip.model.CLIP(16, vision, words | text).eval()


def vilt(model: Any) -> Any:
    torch.manual_seed(0)  # it draws the patches that it sees
    return model(input_ids=TOKENS, attention_mask=SEEN, pixel_values=IMAGES)


ROBERTA = SIZES | WORDS | {"max_position_embeddings": 24}
PUBLIC: dict[str, Made] = {
    "ViT": sees("ViT"), "ViT eager": sees("ViT", attn_implementation="eager"), "DeiT": sees("DeiT"),
    "DINOv2": sees("Dinov2"), "DINOv2 gated": sees("Dinov2", use_swiglu_ffn=True),
    "DINOv2 registers": sees("Dinov2WithRegisters"), "DINOv3": sees("DINOv3ViT"),
    "DINOv3 gated": sees("DINOv3ViT", use_gated_mlp=True), "BEiT": sees("Beit"), "AIMv2": sees("Aimv2Vision"),
    "Swin": (lambda: t("Swin", embed_dim=16, depths=[2, 2], num_heads=[2, 4], image_size=32, patch_size=4,
                       window_size=4), lambda m: m(pixel_values=noise(2, 3, 32, 32))),
    "CLIP": two("CLIP"), "CLIP eager": two("CLIP", attn_implementation="eager"), "MetaCLIP2": two("MetaClip2"),
    "SigLIP": two("Siglip"), "SigLIP eager": two("Siglip", attn_implementation="eager"), "SigLIP2": (siglip2, patches),
    "ChineseCLIP": two("ChineseCLIP"), "OWLv2": two("Owlv2"),
    "AltCLIP": two("AltCLIP", text={"project_dim": 32}, projection_dim=32),
    "BLIP": two("Blip", text={"encoder_hidden_size": 32}),
    "BLIP with cross-attention": (
        lambda: T.BlipForImageTextRetrieval(T.BlipConfig(
            text_config=SIZES | WORDS | {"encoder_hidden_size": 32}, vision_config=SIZES | PIXELS)).eval(),
        lambda m: m(input_ids=TOKENS, attention_mask=SEEN, pixel_values=IMAGES)),
    "BERT": reads("Bert", **SIZES, vocab_size=60), "BERT, padded left": reads("Bert", LEFT, **SIZES, vocab_size=60),
    "BERT eager": reads("Bert", **SIZES, vocab_size=60, attn_implementation="eager"),
    "RoBERTa": reads("Roberta", **ROBERTA), "XCLIP text": reads("XCLIPText", **SIZES, **WORDS),
    "DistilBERT": reads("DistilBert", dim=32, n_layers=2, n_heads=4, hidden_dim=48, vocab_size=60),
    "ViLT": (lambda: t("Vilt", **SIZES, **WORDS, **PIXELS), vilt),
    "BridgeTower": (bridge_tower, lambda m: m(input_ids=TOKENS, attention_mask=SEEN, pixel_values=IMAGES)),
    "DETR": (detr, lambda m: m(pixel_values=LARGE)),
    "Grounding DINO": (grounding_dino, lambda m: m(pixel_values=LARGE, input_ids=TOKENS[:1]).last_hidden_state),
    "LLaVA": (llava, lambda m: m(input_ids=TOKENS, attention_mask=SEEN)), "Qwen2-VL": (qwen, look),
    "Llama": reads("Llama", **GROUPED), "Llama, padded left": reads("Llama", LEFT, **GROUPED),
    "Gemma": reads("Gemma", **GROUPED, head_dim=8), "Phi": reads("Phi", **SIZES, vocab_size=60),
    "BART": (lambda: t("Bart", d_model=32, encoder_layers=2, decoder_layers=2, encoder_attention_heads=4,
                       decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48, vocab_size=60),
             lambda m: m(input_ids=TOKENS, attention_mask=SEEN).last_hidden_state[SEEN.bool()]),
    "timm ViT": of_timm("vit_tiny_patch16_224"), "timm DeiT3": of_timm("deit3_small_patch16_224", init_values=0.5),
    "timm FlexiViT": of_timm("flexivit_small"), "timm normed queries": of_timm("vit_tiny_patch16_224", qk_norm=True),
    "timm no biases": of_timm("vit_tiny_patch16_224", qkv_bias=False),
    "timm BEiT": of_timm("beit_base_patch16_224", init_values=0.5), "timm EVA02": of_timm("eva02_tiny_patch14_224"),
    "timm EVA02 normed": of_timm("eva02_base_patch14_224"),
    "timm DINOv3": of_timm("vit_small_patch16_dinov3", init_values=0.5),
    "timm rotary": of_timm("vit_small_patch16_rope_224", init_values=0.5),
    "timm gated": of_timm("vit_giant_patch14_dinov2", init_values=0.5),
    "timm perception encoder": of_timm("vit_pe_core_tiny_patch16_384"),
    "timm parallel": of_timm("vit_small_patch16_18x2_224", init_values=0.5),
    "timm relative": of_timm("vit_relpos_small_patch16_224", init_values=0.5),
    "timm Swin": windows("swin_tiny_patch4_window7_224"), "timm Swin 2": windows("swinv2_tiny_window8_256"),
    "open_clip": (of_open_clip, lambda m: m(IMAGES, TOKENS)),
}  # fmt: skip


def built(name: str) -> nn.Module:
    """One of them, with weights not so small that attention is a mean."""
    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = PUBLIC[name][0]()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.3)
        elif not parameter.any():
            nn.init.normal_(parameter, std=0.1)  # a norm or a scale that begins at zero would hide what is behind it
    return Called(model, PUBLIC[name][1])


class Called(nn.Module):
    """A model that is called as its family is; gives all its floating tensors, flat."""

    def __init__(self, model: nn.Module, how: Callable[[Any], Any]) -> None:
        super().__init__()
        self.model, self.how = model, how

    def forward(self) -> list[Tensor]:
        return list(_flat(self.how(self.model)))


def _flat(value: Any) -> list[Tensor]:
    if isinstance(value, Tensor):
        return [value] if value.is_floating_point() else []
    parts = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [tensor for part in parts for tensor in _flat(part)]


WORDING = {
    "apart": "dimensions, of queries and keys apart from values", "dims": "dimensions of heads", "heads": "whole heads",
    "padded": "zeros in place", "hidden": "hidden units",
}  # fmt: skip


def table() -> str:
    """What is cut in each, as markdown: what `docs/families.md` shows."""
    from snp.compression.finding import find

    lines = ["| model | tower | attention | feed-forward | stays whole |", "|---|---|---|---|---|"]
    for name in PUBLIC:
        if name.endswith((" eager", "left")):
            continue
        found = find(built(name).model)
        for tower, view in found.towers.items():
            parts = {c: WORDING[part.form] for c, part in view.blocks[0].components.items()}
            attention = ", ".join(dict.fromkeys(word for c, word in parts.items() if not c.startswith("ffn")))
            feed = ", ".join(dict.fromkeys(word for c, word in parts.items() if c.startswith("ffn")))
            layers = view.blocks[0].layer.rpartition(".")[0]
            left = {path.removeprefix(f"{layers}.0.") for path in found.left if path.startswith(f"{layers}.0.")}
            left |= {"feed-forward"} if f"{layers}.0" in found.left else set()
            whole = ", ".join(f"`{path}`" for path in sorted(left))
            lines.append(f"| {name} | `{found.paths[tower]}` | {attention} | {feed} | {whole} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    from pathlib import Path

    page = Path(__file__).parents[1] / "docs" / "families.md"
    before, _, rest = page.read_text(encoding="utf-8").partition("<!-- families -->\n")
    after = rest.partition("<!-- families end -->")[2]
    page.write_text(f"{before}<!-- families -->\n{table()}<!-- families end -->{after}", encoding="utf-8")
