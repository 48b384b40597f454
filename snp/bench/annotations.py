"""How long an annotation file of the size of MDETR's mixture takes to read, then from its cache, and in what memory."""

import resource
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from snp.data.flat import Flat
from snp.data.tokens import Vocabulary
from snp.processes import pool

CAPTIONS = 1_300_000
BOXES, PER_PICTURE, WORDS, CONTEXT = 3, 8, 14, 256
"""Of a caption; captions of a picture; words of a caption; most tokens a caption may have."""
CLIP_IDS = 49408


def reading(captions: int = CAPTIONS) -> str:
    """Seconds and peak memory of reading a made-up file for the first time and again, each in a process of its own."""
    with TemporaryDirectory() as folder:
        root = Path(folder)
        path = root / "annotations" / "mixed.json"
        path.parent.mkdir()
        _make(path, captions)
        size = path.stat().st_size / 2**30
        lines = [f"{captions:,} captions, {captions * BOXES:,} boxes, {size:.2f} GiB of JSON"]
        for name in ("first reading", "from its cache"):
            seconds, computing, peak, before = _apart(root)
            lines.append(
                f"{name:16} {seconds:6.1f} s ({computing:.1f} s of them computing)   "
                f"peak {peak:5.2f} GiB ({before:.2f} of it before)"
            )
        cache = next((root / "cache").iterdir()).stat().st_size / 2**30
        return "\n".join([*lines, f"{'cache':16} {cache:6.2f} GiB on the disk"])


def _apart(root: Path) -> tuple[float, ...]:
    """Seconds, those of them computing, peak memory, and the peak before anything was read, of a fresh process."""
    with pool(1) as processes:
        return processes.submit(_read, root).result()


def _read(root: Path) -> tuple[float, ...]:
    vocabulary = Vocabulary(range(CLIP_IDS))
    vocabulary.encode("a")
    before, start, computed = _peak(), time.perf_counter(), time.process_time()
    flat = Flat.cached(root, "mixed", vocabulary, CONTEXT)
    flat.names[flat.file_N], flat.lengths.max()  # what a data set asks of all entries at once
    return time.perf_counter() - start, time.process_time() - computed, _peak(), before


def _peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def _make(path: Path, captions: int) -> None:
    """Captions of words of one to four syllables, as often as words of a language are."""
    rng = np.random.default_rng(0)
    parts = np.array(["ba", "cor", "den", "fil", "gu", "ham", "ist", "jo", "ka", "lem", "mo", "ner", "ot", "pri"])
    words = ["".join(rng.choice(parts, rng.integers(1, 5))) for _ in range(20_000)]
    with open(path, "w", encoding="utf-8") as file:
        file.write('{"info": [], "licenses": [], "images": [')
        for i in range(captions):
            caption = " ".join(words[k % len(words)] for k in rng.zipf(1.3, WORDS).tolist()) + "."
            file.write(
                f'{", " if i else ""}{{"file_name": "COCO_train2014_{i // PER_PICTURE:012d}.jpg", "height": 480, '
                f'"width": 640, "id": {i}, "original_id": {i // PER_PICTURE}, "caption": "{caption}", '
                f'"tokens_negative": [[0, {len(caption)}]], "dataset_name": "mixed", "data_source": "vg"}}'
            )
        file.write('], "annotations": [')
        corners = rng.random((captions, BOXES, 2)) * 300
        for i, own in enumerate(corners):
            for k, (x, y) in enumerate(own.tolist()):
                file.write(
                    f'{", " if i + k else ""}{{"area": 3030.0, "iscrowd": 0, "image_id": {i}, "category_id": 1, "id": '
                    f'{i * BOXES + k}, "bbox": [{x}, {y}, 50.5, 60], "tokens_positive": [[{7 * k}, {7 * k + 6}]]}}'
                )
        file.write('], "categories": [{"supercategory": "object", "id": 1, "name": "object"}]}')
