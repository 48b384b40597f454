"""A small data set of a user's own, as a test writes it: coloured squares, each named by its colour and side."""

import random
from pathlib import Path

from PIL import Image

from snp.data import annotations
from snp.data.annotations import Entry

COLORS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 60, 220)}


def write(root: Path, seed: int = 0, train: int = 160, others: int = 8) -> Path:
    """Pictures of 48 by 64 pixels with a square, one caption each; the folder."""
    draw = random.Random(seed)
    (root / "images").mkdir(parents=True)
    for split, count in (("train", train), ("val", others), ("test", others)):
        entries = []
        for number in range(count):
            name, place = draw.choice([*COLORS]), draw.choice(["left", "right"])
            x, y = draw.randint(0, 12) + 32 * (place == "right"), draw.randint(0, 28)
            image = Image.new("RGB", (64, 48), (120, 120, 120))
            image.paste(COLORS[name], (x, y, x + 20, y + 20))
            image.save(root / "images" / f"{split}-{number}.png")
            caption = f"the {name} square on the {place}"
            entries.append(
                Entry(
                    id=number,
                    file_name=f"{split}-{number}.png",
                    height=48,
                    width=64,
                    caption=caption,
                    dataset_name="squares",
                    boxes=((x, y, 20, 20),),
                    spans=(((4, len(f"the {name} square")),),),
                    type="place",
                    categories=([*COLORS].index(name),),
                )
            )
        annotations.write(root / "annotations" / f"{split}.json", entries, [*COLORS])
    return root
