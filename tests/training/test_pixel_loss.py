"""The loss on pixels, against sums written out."""

import pytest

torch = pytest.importorskip("torch")

from scaleport.training.objective import pixel_loss  # noqa: E402
from scaleport.training.recipe import Loss  # noqa: E402


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Loss(), (0.5 + 0.25) / 12),
        (Loss(pixels="mse"), (0.25 + 0.0625) / 12),
    ],
)
def test_pixels(options, expected):
    output, target = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    output[0, 0, 0, 0], target[0, 2, 1, 1] = 0.5, 0.25
    assert float(pixel_loss(output, target, options)) == pytest.approx(expected)


def test_spectrum_is_added():
    output, target = torch.zeros(1, 3, 2, 2), torch.zeros(1, 3, 2, 2)
    output[0, :] = 0.5  # a constant: 4 * 0.5 at frequency zero, real, and nothing elsewhere
    for pixels, mean in (("l1", 0.5), ("mse", 0.25)):
        loss = float(pixel_loss(output, target, Loss(pixels=pixels, fft=0.1)))
        assert loss == pytest.approx(mean + 0.1 * 2.0 / (2 * 2 * 2))
