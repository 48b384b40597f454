"""What a dual encoder saves in time, beside the dense model: a new picture, one that is kept, many captions of one.

Time does not depend on weights: models are those of desk scale with random ones.
"""

from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

import torch

from snp.bench.pairs import pairs
from snp.bench.trimming import THREADS, WORDS
from snp.checkout import home
from snp.files import write_json
from snp.models.config import DESK
from snp.models.dual import Dual
from snp.models.grounder import Inputs
from snp.models.mdetr import MDETR
from snp.models.pictures import Seen
from snp.report.cheaper import DUAL_TIMES
from snp.runs.manifest import bench_state

ROUNDS, MANY = 200, 32
SAID = {
    "new": "a new picture",
    "kept": "a kept picture, beside the dense model that looks at it anew",
    "kept beside kept": "a kept picture, beside the dense model that keeps its tower's states",
    "many": f"a new picture with {MANY} captions",
}


class Keeping(MDETR):
    """The dense model, which keeps what its vision tower says of a picture."""

    kept: Seen

    def see(self, inputs: Inputs) -> Seen:
        """What is kept, whatever the picture is."""
        return self.kept


def dual(rounds: int = ROUNDS, write: bool = True) -> str:
    """Measure all of `SAID` with one thread and with two, and give it as text."""
    threads = torch.get_num_threads()
    try:
        lines = list(_lines(rounds))
    finally:
        torch.set_num_threads(threads)
    if write:
        write_json(home() / DUAL_TIMES, {"manifest": bench_state(), "measured": lines})
    return "\n".join(map(_told, lines))


@torch.inference_mode()
def _lines(rounds: int) -> Iterator[dict[str, Any]]:
    torch.manual_seed(0)
    dense, keeping = MDETR(DESK).eval(), Keeping(DESK).eval()
    student = Dual.from_mdetr(MDETR(DESK)).eval()
    lengths = torch.randint(WORDS[0], WORDS[1] + 1, (rounds,)).tolist()
    one = [_captions(1, length) for length in lengths]
    many = _captions(MANY, WORDS[1])
    keeping.kept = dense.see(one[0])
    kept = student.cache(one[0])

    def asked(at: int) -> None:
        given = one[at]
        student.say(kept, student.read(given.tokens_BL, given.text_BL), given.text_BL)

    work: dict[str, tuple[Callable[[int], object], Callable[[int], object], int]] = {
        "new": (lambda at: dense(*one[at]), lambda at: student(*one[at]), rounds),
        "kept": (lambda at: dense(*one[at]), asked, rounds),
        "kept beside kept": (lambda at: keeping(*one[at]), asked, rounds),
        "many": (lambda at: dense(*many), lambda at: student(*many), max(rounds // 4, 2)),
    }
    for threads in THREADS:
        torch.set_num_threads(threads)
        for name, (first, second, count) in work.items():
            yield {"what": name, "threads": threads} | asdict(pairs(first, second, count))


def _captions(count: int, words: int) -> Inputs:
    """So many captions of one picture."""
    text = torch.ones(count, words, dtype=torch.bool)
    picture = torch.randint(0, 256, (1, 3, DESK.image_size, DESK.image_size), dtype=torch.uint8)
    return Inputs(picture, torch.zeros(count, dtype=torch.long), torch.ones_like(text, dtype=torch.long), text)


def _told(line: dict[str, Any]) -> str:
    return (
        f"{SAID[line['what']]:70} {line['threads']} threads  {1e3 * line['one']:7.2f} ms dense  "
        f"{1e3 * line['other']:7.2f} ms dual  {line['ratio']:.2f}x [{line['low']:.2f}, {line['high']:.2f}]"
    )
