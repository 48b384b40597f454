"""Picture files of every kind: what a model sees of them is what people see."""

import random
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from PIL.Image import Transpose

from snp.data import pixels
from snp.data.show import sample_page
from snp.errors import InputError

RAMP = np.linspace(0, 255, 16 * 12).reshape(12, 16).round()
"""From black to white, 16 x 12 pixels."""
TURNED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}
"""EXIF orientation -> how a camera stores a picture that is to be seen upright."""


def grey(kind: type, most: float) -> Image.Image:
    return Image.fromarray((RAMP * (most / 255)).astype(kind))


MODES = {
    "L.png": grey(np.uint8, 255),
    "16 bits.png": grey(np.uint16, 65535),
    "16 bits.tif": grey(np.uint16, 65535),
    "32 bits, of which 16 are used.tif": grey(np.int32, 65535),
    "32 bits, of which 8 are used.tif": grey(np.int32, 255),
    "32 bits.tif": grey(np.int32, 2**31 - 1),
    "shares.tif": grey(np.float32, 1),
    "floats up to 255.tif": grey(np.float32, 255),
    "floats up to 65535.tif": grey(np.float32, 65535),
    "LA.png": Image.merge("LA", (grey(np.uint8, 255), Image.new("L", (16, 12), 90))),
    "RGB.png": grey(np.uint8, 255).convert("RGB"),
    "RGBA.png": Image.merge("RGBA", (*[grey(np.uint8, 255)] * 3, Image.new("L", (16, 12), 90))),
    "CMYK.tif": Image.merge("CMYK", (*[Image.fromarray((255 - RAMP).astype(np.uint8))] * 3, Image.new("L", (16, 12)))),
    "P.png": grey(np.uint8, 255).convert("P"),
    "YCbCr.tif": grey(np.uint8, 255).convert("YCbCr"),
}


@pytest.mark.parametrize("name", MODES)
def test_a_grey_ramp_is_one_in_every_mode(tmp_path: Path, name: str) -> None:
    MODES[name].save(tmp_path / name)
    seen = np.asarray(pixels.load(tmp_path / name))
    assert seen.shape == (12, 16, 3) and seen.dtype == np.uint8
    assert np.abs(seen.astype(int) - RAMP[..., None]).max() <= 1
    assert pixels.look(tmp_path / name) == (16, 12)


def test_black_and_white_and_transparent_palettes(tmp_path: Path) -> None:
    half = Image.fromarray(RAMP > 127)
    half.save(tmp_path / "1.png")
    assert np.array_equal(np.asarray(pixels.load(tmp_path / "1.png"))[..., 0], np.where(RAMP > 127, 255, 0))
    clear = grey(np.uint8, 255).convert("P")
    clear.save(tmp_path / "clear.png", transparency=bytes(range(256)))
    assert np.abs(np.asarray(pixels.load(tmp_path / "clear.png")).astype(int) - RAMP[..., None]).max() <= 1


def test_shares_may_be_whole(tmp_path: Path) -> None:
    Image.fromarray((RAMP > 127).astype(np.float32)).save(tmp_path / "mask.tif")
    assert np.array_equal(np.asarray(pixels.load(tmp_path / "mask.tif"))[..., 0], np.where(RAMP > 127, 255, 0))


def test_16_bits_that_hold_little_light_stay_dark(tmp_path: Path) -> None:
    grey(np.uint16, 2570).save(tmp_path / "dark.png")
    assert np.asarray(pixels.load(tmp_path / "dark.png")).max() == 10


def test_what_is_no_number_is_black_and_what_is_endless_white(tmp_path: Path) -> None:
    values = (RAMP / 255).astype(np.float32)
    values[0, :4] = np.nan, -np.inf, -3, np.inf
    Image.fromarray(values).save(tmp_path / "odd.tif")
    seen = np.asarray(pixels.load(tmp_path / "odd.tif"))[..., 0]
    assert seen[0, :4].tolist() == [0, 0, 0, 255] and np.abs(seen[1:].astype(int) - RAMP[1:]).max() <= 1


@pytest.mark.parametrize("ending", ["jpg", "png", "tif", "webp"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_picture_that_a_camera_turned_is_seen_upright(tmp_path: Path, orientation: int, ending: str) -> None:
    upright = grey(np.uint8, 255).convert("RGB").resize((96, 72))
    stored = upright if TURNED[orientation] is None else upright.transpose(TURNED[orientation])
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"phone.{ending}"
    stored.save(path, exif=exif, **({"quality": 95} if ending != "tif" else {}))
    seen = pixels.load(path)
    assert seen.size == pixels.look(path) == (96, 72)
    assert np.abs(np.asarray(seen).astype(int) - np.asarray(upright)).max() <= 12
    want = np.asarray(upright.resize((24, 24), Image.Resampling.BILINEAR)).transpose(2, 0, 1).astype(int)
    assert np.abs(pixels.read_image(path, 24).astype(int) - want).max() <= 12


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_is_none_turns_nothing(tmp_path: Path, orientation: object) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    MODES["RGB.png"].save(tmp_path / "odd.png", exif=exif)
    assert np.array_equal(np.asarray(pixels.load(tmp_path / "odd.png")), np.asarray(MODES["RGB.png"]))


@pytest.mark.filterwarnings("ignore")  # Pillow says of most what it met
def test_pictures_spoiled_anywhere_are_read_or_refused_in_one_line(tmp_path: Path) -> None:
    draw, refused, path = random.Random(0), 0, tmp_path / "spoiled"
    exif = Image.Exif()
    exif[0x0112] = 6
    for ending in ("jpg", "png", "tif", "webp", "bmp", "gif"):
        MODES["RGB.png"].save(tmp_path / f"whole.{ending}", **({"exif": exif} if ending not in ("bmp", "gif") else {}))
        whole = (tmp_path / f"whole.{ending}").read_bytes()
        for _ in range(60):
            content = bytearray(whole[: draw.randrange(len(whole))] if draw.random() < 0.3 else whole)
            for _ in range(draw.randint(0, 3)):
                if content:
                    content[draw.randrange(len(content))] = draw.randrange(256)
            path.write_bytes(content)
            for read in (lambda: pixels.read_image(path, 8), lambda: pixels.look(path)):
                try:
                    read()
                except InputError as error:
                    assert error.where == str(path)
                    refused += 1
    assert refused > 60


def test_the_sample_page_shows_pictures_by_the_same_reader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("snp.data.show.load", lambda path: (_ for _ in ()).throw(InputError(path, "asked for")))
    from snp.data.drawn import scenes

    made = scenes.make(tmp_path / "s", 1, train=1, test=4, pretrain_val=1, workers=1)
    with pytest.raises(InputError, match="asked for"):
        sample_page(made, tmp_path / "page.png", n=1)
