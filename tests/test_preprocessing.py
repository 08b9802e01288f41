import io
import itertools
import struct

import numpy as np
import PIL.Image
import pytest
import tensorflow as tf

from keras_lt.datasets.examining import examine_encoded
from keras_lt.preprocessing import AUGMENTATIONS, Preprocessing, decode
from keras_lt.preprocessing.augmentations import CROP_AREA, CROP_RATIO, adjust_colours, random_window
from keras_lt.preprocessing.decoding import bounded

PLAIN = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def ramp(height, width):
    """An RGB image whose red is its row, green its column, blue 0."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0] = np.arange(height)[:, None]
    image[..., 1] = np.arange(width)[None, :]
    return image


def pixels(result):
    return np.round(np.asarray(result) * 255).astype(int)


def test_normalisation_is_per_channel_and_may_turn_to_bgr():
    image = tf.constant(np.full((2, 2, 3), (255, 51, 0), np.uint8))
    spec = Preprocessing(2, mean=(0.5, 0.2, 0.1), std=(0.5, 0.1, 0.2))
    np.testing.assert_allclose(spec.evaluate(image)[0, 0], [1.0, 0.0, -0.5], atol=1e-6)
    spec = Preprocessing(2, mean=(0.5, 0.2, 0.1), std=(0.5, 0.1, 0.2), channel_order="bgr")
    np.testing.assert_allclose(spec.evaluate(image)[0, 0], [-0.5, 0.0, 1.0], atol=1e-6)
    spec = Preprocessing(2, mean=(0.5,), std=(0.25,))  # of all channels
    np.testing.assert_allclose(spec.evaluate(image)[0, 0], [2.0, -1.2, -2.0], atol=1e-6)


def test_evaluation_resizes_the_shorter_side_and_crops_the_centre():
    # 8/6 of 6 rows is 8, of 9 columns is 12: the shorter side needs no resize, so pixels are the image's own.
    spec = Preprocessing(6, crop_fraction=6 / 8, **PLAIN)
    result = pixels(spec.evaluate(tf.constant(ramp(8, 12))))
    np.testing.assert_array_equal(result[:, 0, 0], np.arange(1, 7))
    np.testing.assert_array_equal(result[0, :, 1], np.arange(3, 9))


def test_evaluation_shrinks_with_antialiasing():
    # 8 -> 2: a triangle of support 4 around the output's centre at 2 weighs pixels 0..5 by .625 .875 .875 .625 .375
    # .125, so 6/7 of it lies on the near half of the image and 1/7 on the far half.
    quarters = np.array([[0, 100], [200, 40]])
    image = np.repeat(np.repeat(quarters[..., None], 4, 0), 4, 1).astype(np.uint8)
    near_and_far = np.array([[6, 1], [1, 6]]) / 7
    result = np.asarray(Preprocessing(2, **PLAIN).evaluate(tf.constant(image)))[..., 0] * 255
    np.testing.assert_allclose(result, near_and_far @ quarters @ near_and_far, atol=1e-3)


@pytest.mark.parametrize("size", [8, 5])
def test_a_batch_gives_what_its_images_give(size):
    rng = np.random.default_rng(0)
    images = tf.constant(rng.integers(0, 256, (3, 8, 8, 1), np.uint8))
    spec = Preprocessing(size, **PLAIN)
    np.testing.assert_allclose(spec.evaluate(images), tf.stack([spec.evaluate(image) for image in images]), atol=1e-6)


@pytest.mark.parametrize("encode", [tf.io.encode_png, lambda x: tf.io.encode_jpeg(x, quality=100)])
def test_encoded_images_decode_to_their_pixels(encode):
    image = np.full((5, 7, 3), (10, 120, 250), np.uint8)
    result = decode(encode(image))
    assert result.dtype == tf.uint8
    np.testing.assert_allclose(result, image, atol=3)


def test_grey_png_becomes_rgb():
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4, 1)
    np.testing.assert_array_equal(decode(tf.io.encode_png(grey)), np.repeat(grey, 3, -1))


@pytest.mark.parametrize("augmentation", AUGMENTATIONS)
def test_training_pixels_depend_on_the_seed_alone(augmentation):
    rng = np.random.default_rng(1)
    image = tf.constant(rng.integers(0, 256, (24, 20, 3), np.uint8))
    spec = Preprocessing(16, augmentation=augmentation, **PLAIN)
    first, again = spec.train(image, tf.constant([5, 1])), spec.train(image, tf.constant([5, 1]))
    np.testing.assert_array_equal(first, again)
    assert first.shape == (16, 16, 3)
    others = [spec.train(image, tf.constant([5, step])) for step in range(2, 8)]
    assert any(not np.array_equal(first, other) for other in others) == (augmentation != "none")


def test_without_augmentation_training_sees_what_evaluation_sees():
    image = tf.constant(ramp(20, 30))
    spec = Preprocessing(16, crop_fraction=0.8, **PLAIN)
    np.testing.assert_array_equal(spec.train(image, tf.constant([0, 0])), spec.evaluate(image))


def test_crop_shifts_by_at_most_the_padding():
    spec = Preprocessing(16, augmentation="crop", **PLAIN)
    image = tf.constant(ramp(16, 16) + np.uint8([1, 1, 0]))  # black is padding only
    train, shifts = tf.function(spec.train), set()
    for step in range(300):
        result = pixels(train(image, tf.constant([0, step])))
        row, column = np.argwhere(result[..., 0] > 0)[0]
        shifts.add((int(result[row, column, 0]) - 1 - row, int(result[row, column, 1]) - 1 - column))
    assert {s for s, _ in shifts} == {s for _, s in shifts} == set(range(-4, 5))


def test_half_of_the_images_are_mirrored():
    spec = Preprocessing(16, augmentation="crop_flip", **PLAIN)
    image = tf.constant(ramp(16, 16) + np.uint8([1, 1, 0]))
    train, flipped = tf.function(spec.train), 0
    for step in range(400):
        columns = pixels(train(image, tf.constant([0, step])))[..., 1].max(0)
        flipped += bool(columns[7] > columns[8])
    assert abs(flipped - 200) < 40  # four standard deviations of 400 fair coins


def test_random_resized_crop_covers_8_to_100_percent():
    spec = Preprocessing(8, augmentation="resized_crop_flip", **PLAIN)
    image = tf.constant(ramp(200, 200))
    train, areas = tf.function(spec.train), []
    for step in range(200):
        result = np.asarray(train(image, tf.constant([1, step]))) * 255
        span = (result.max((0, 1)) - result.min((0, 1)))[:2] * 8 / 7  # eight samples span seven steps
        areas.append(span.prod() / 200**2)
    assert 0.05 < min(areas) < 0.2
    assert max(areas) > 0.8
    # Uniform on [.08, 1] has mean .54; windows too long for the image are drawn again, which costs the largest.
    assert 0.42 < np.mean(areas) < 0.54


def test_windows_have_a_uniform_area_and_a_log_uniform_ratio_anywhere_in_the_image():
    # Small areas of a square always fit, so nothing is drawn again and the quantiles are those of the plain draws.
    window = tf.function(
        lambda step: random_window(
            tf.constant([1000, 1000, 3]), tf.stack([0, step]), area=(0.08, 0.6), ratio=CROP_RATIO
        )
    )
    top, left, height, width = np.array([window(tf.constant(step)) for step in range(1500)]).T
    quantiles = np.array([0.1, 0.5, 0.9])
    error = 4 * np.sqrt(quantiles * (1 - quantiles) / 1500)  # in the share of windows below
    for values, expected in (
        (height * width / 1e6, 0.08 + 0.52 * quantiles),
        (width / height, np.exp(np.log(3 / 4) + np.log(16 / 9) * quantiles)),
        (top / (1000 - height), quantiles),
        (left / (1000 - width), quantiles),
    ):
        assert (np.abs((values[:, None] <= expected).mean(0) - quantiles) < error).all()


@pytest.mark.parametrize("size", [(375, 500), (40, 30), (3, 300), (1, 1)])
def test_windows_lie_in_the_image(size):
    shape = tf.constant([*size, 3])
    window = tf.function(lambda seed: random_window(shape, seed, area=CROP_AREA, ratio=CROP_RATIO))
    for step in range(50):
        top, left, height, width = window(tf.constant([1, step])).numpy()
        assert min(top, left) >= 0
        assert min(height, width) >= 1
        assert top + height <= size[0]
        assert left + width <= size[1]


def test_a_long_image_falls_back_to_its_central_window():
    # 10 x 1000: every draw of area >= 8 % and ratio <= 4/3 is taller than 10 rows, so: 10 rows, 13 central columns.
    spec = Preprocessing(10, augmentation="resized_crop_flip", **PLAIN)
    image = np.zeros((10, 1000, 3), np.uint8)
    image[:, 493:506] = 255  # from (1000 - 13) // 2 = 493, as torchvision
    assert pixels(spec.train(tf.constant(image), tf.constant([0, 0]))).min() == 255


def test_jpeg_is_cropped_as_its_pixels_are():
    smooth = ramp(64, 64)
    spec = Preprocessing(16, augmentation="resized_crop_flip", **PLAIN)
    encoded = tf.io.encode_jpeg(smooth, quality=100, chroma_downsampling=False)
    for step in range(5):
        seed = tf.constant([2, step])
        np.testing.assert_allclose(spec.train(encoded, seed), spec.train(tf.constant(smooth), seed), atol=4 / 255)


def test_jitter_keeps_the_range_and_grey_stays_grey():
    spec = Preprocessing(8, augmentation="imagenet", **PLAIN)
    grey = tf.constant(np.full((16, 16, 3), 100, np.uint8))
    train = tf.function(spec.train)
    values = [np.asarray(train(grey, tf.constant([3, step]))) for step in range(60)]
    for value in values:
        np.testing.assert_allclose(value, value[0, 0, 0], atol=1e-6)  # contrast and saturation do nothing to one grey
    brightness = np.array([value[0, 0, 0] for value in values]) * 255 / 100
    assert 0.6 - 1e-3 <= brightness.min() < 0.7
    assert 1.3 < brightness.max() <= 1.4 + 1e-3


AS_IT_IS = np.ones(3, np.float32), np.zeros(3, np.float32)  # scale and offset


def test_jittered_images_are_normalised_as_others_are():
    image = tf.constant(np.random.default_rng(0).integers(0, 256, (20, 20, 3), np.uint8))
    mean, std = [0.5, 0.2, 0.1], [0.5, 0.1, 0.2]
    plain = Preprocessing(16, augmentation="imagenet", **PLAIN)
    spec = Preprocessing(16, augmentation="imagenet", mean=mean, std=std, channel_order="bgr")
    for step in range(3):
        seed = tf.constant([4, step])
        expected = (plain.train(image, seed).numpy() - mean) / std
        np.testing.assert_allclose(spec.train(image, seed), expected[..., ::-1], atol=1e-4)


def test_jitter_by_hand():
    # Red 100 and white 200: greys 29.89 and 199.98 (the weights add up to .9999), their mean 114.935.
    image = tf.constant([[[100.0, 0, 0], [200, 200, 200]]])
    by_one = {
        0: [[[140.0, 0, 0], [255, 255, 255]]],  # 1.4 times, clipped
        1: [[[107.4675, 57.4675, 57.4675], [157.4675] * 3]],  # halfway to 114.935
        2: [[[71.956, 11.956, 11.956], [199.992] * 3]],  # .6 of the colour, .4 of the grey
    }
    for only, expected in by_one.items():
        factors = np.where(np.arange(3) == only, [1.4, 0.5, 0.6], 1.0).astype(np.float32)
        np.testing.assert_allclose(
            adjust_colours(image, factors, tf.constant([2, 0, 1]), *AS_IT_IS), expected, atol=1e-3
        )
    # Brightness before contrast: (140, 0, 0) and 255 have greys 41.846 and 254.9745, their mean 148.41025.
    factors = tf.constant([1.4, 0.5, 1.0])
    brighter_first = [[[144.205125, 74.205125, 74.205125], [201.705125] * 3]]
    np.testing.assert_allclose(
        adjust_colours(image, factors, tf.constant([0, 1, 2]), *AS_IT_IS), brighter_first, atol=1e-3
    )
    fainter_first = [[[150.4545, 80.4545, 80.4545], [220.4545] * 3]]
    np.testing.assert_allclose(
        adjust_colours(image, factors, tf.constant([1, 0, 2]), *AS_IT_IS), fainter_first, atol=1e-3
    )


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_jitter_blends_and_clips_step_by_step_in_every_order(order):
    image = np.random.default_rng(0).uniform(0, 255, (9, 9, 3)).astype(np.float32)
    for factors in ((1.4, 1.3, 0.6), (0.7, 1.4, 1.4), (1.2, 0.6, 1.3)):
        expected = image.astype(np.float64)
        for step in order:
            grey = expected @ [[0.2989], [0.587], [0.114]]
            other = (0.0, grey.mean(), grey)[step]
            expected = np.clip(other + factors[step] * (expected - other), 0, 255)
        result = adjust_colours(tf.constant(image), tf.constant(factors), tf.constant(order), *AS_IT_IS)
        np.testing.assert_allclose(result, expected, atol=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"image_size": 0}, "image_size must be at least 1"),
        ({"image_size": 8, "crop_fraction": 1.5}, "crop_fraction must lie in"),
        ({"image_size": 8, "channel_order": "hsv"}, "channel_order must be one of"),
        ({"image_size": 8, "augmentation": "flop"}, "augmentation must be one of .*crop_flip"),
        ({"image_size": 8, "randaugment": -1}, "randaugment must lie in"),
        ({"image_size": 8, "randaugment_magnitude": 11.0}, "randaugment_magnitude must lie in .0, 10"),
        ({"image_size": 8, "random_erasing": 1.5}, "random_erasing must lie in .0, 1"),
        ({"image_size": 8, "cutmix": float("nan")}, "cutmix must lie in"),
    ],
)
def test_bad_settings_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Preprocessing(**arguments, **PLAIN)


def header(kind, height, width):
    """The start of an image of that size, without its pixels."""
    jpeg = tf.io.encode_jpeg(np.zeros((8, 8, 3), np.uint8)).numpy()
    start = jpeg.index(b"\xff\xc0")
    return {
        "png": b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", width, height),
        "gif": b"GIF89a" + struct.pack("<HH", width % 65536, height % 65536),
        "bmp": b"BM" + bytes(16) + struct.pack("<ii", width, -height),
        "webp": b"RIFF\0\0\0\0WEBPVP8X"
        + bytes(8)
        + (width - 1).to_bytes(3, "little")
        + (height - 1).to_bytes(3, "little"),
        "jpeg": jpeg[: start + 5] + struct.pack(">HH", height, width) + jpeg[start + 9 :],
    }[kind]


@pytest.mark.parametrize("kind", ["png", "gif", "bmp", "webp", "jpeg"])
def test_an_image_of_too_many_pixels_is_refused_before_it_is_decoded(kind):
    assert bounded(header(kind, 10_000, 10_000)) == header(kind, 10_000, 10_000)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than 100,000,000 pixels"):
        bounded(header(kind, 10_000, 10_001))


def test_a_bmp_with_a_palette_of_colours_is_refused_as_it_is_in_training():
    preprocessing = Preprocessing(image_size=4, mean=(0.0,) * 3, std=(1.0,) * 3)

    def bmp(*palette):
        image, file = PIL.Image.frombytes("P", (4, 4), bytes(range(8)) * 2), io.BytesIO()
        image.putpalette(sum(palette, ()))
        image.save(file, "BMP")
        return file.getvalue()

    grey = [(shade,) * 3 for shade in range(8)]
    found = preprocessing.evaluate(tf.constant(bmp(*grey)))
    np.testing.assert_allclose(found[0, :, 0], np.arange(4) / 255, atol=1e-6)
    examine_encoded(bmp(*grey))
    for odd in (bmp(*grey[:7], (7, 7, 8)), bmp(*reversed(grey))):
        with pytest.raises(tf.errors.InvalidArgumentError, match="palette of colours"):
            preprocessing.evaluate(tf.constant(odd))
        with pytest.raises(ValueError, match="BMP with a palette"):
            examine_encoded(odd)


@pytest.mark.parametrize("shape", [(1, 6000), (40_000, 1), (3, 25)])
def test_an_extreme_shape_costs_no_more_than_eight_squares(shape):
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    preprocessing = Preprocessing(image_size=32, mean=(0.0,) * 3, std=(1.0,) * 3)
    seen = []
    resize = tf.image.resize
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            tf.image, "resize", lambda image, size, **k: seen.append(np.array(size)) or resize(image, size, **k)
        )
        found = preprocessing.evaluate(tf.io.encode_png(image))
    assert found.shape == (32, 32, 3)
    assert np.prod(seen[0]) <= 8 * 32 * 32
