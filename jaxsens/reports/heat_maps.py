"""Pieces of figures with heat maps: colours, pictures pixel by pixel, bars.

A heat map is shown over a faint gray copy of its image, each number at the
place of its pixel. Signed numbers go from blue (against the class) through
white at zero to vermilion (for it), numbers without a sign from white to
purple. Small images are enlarged in whole multiples, so that pixels stay
squares; large ones are made smaller by means of areas.
"""

from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
from typing import Any

from matplotlib import colors
import numpy as np
from PIL import Image

from jaxsens.reports import style

SIGNED = colors.LinearSegmentedColormap.from_list('signed', [
  '#004d7a', style.ALONE, '#8fc3e2', '#ffffff', '#f5b48a', style.WRONG,
  '#9a4000',
])
UNSIGNED = colors.LinearSegmentedColormap.from_list('unsigned', [
  '#ffffff', '#d3c1e3', '#9767b8', '#441a69',
])
SIDE = 200  # pixels of a picture, about
_PERCENTILE = 99


@dataclasses.dataclass(frozen=True)
class Scale:
  """Which colours numbers have.

  Attributes:
    lower, upper: where the colours end.
    signed: whether zero is white, between them.
  """

  lower: float
  upper: float
  signed: bool

  def colours(self, values: np.ndarray) -> np.ndarray:
    """Returns (..., 3) in [0, 1]."""
    span = (self.upper - self.lower) or 1
    share = np.clip((values - self.lower) / span, 0, 1)
    return (SIGNED if self.signed else UNSIGNED)(share)[..., :3]


def scale_of(heat_maps: np.ndarray, kind: str) -> Scale:
  """Returns the scale of one map or of several.

  Args:
    heat_maps: (..., H, W).
    kind: 'signed', for colours that end at the 99th percentile of |values|
      either way; 'unsigned', for colours from 0 to there; 'level', of maps
      whose differences count alone, from the 1st to the 99th percentile. Of
      maps that are zero nearly everywhere the largest size is taken.
  """
  if kind == 'level':
    lower, upper = np.percentile(heat_maps, [100 - _PERCENTILE, _PERCENTILE])
    return Scale(float(lower), float(upper), False)
  sizes = np.abs(heat_maps)
  upper = float(np.percentile(sizes, _PERCENTILE)) or float(sizes.max())
  signed = kind == 'signed'
  if not upper:  # Zero is white.
    return Scale(-1.0 if signed else 0.0, 1.0, signed)
  return Scale(-upper if signed else 0.0, upper, signed)


def in_tiles(heat_map: np.ndarray, number: int = 16) -> np.ndarray:
  """Returns the sums over square tiles, at each pixel that of its tile.

  Args:
    heat_map: (H, W).
    number: of tiles along the longer side, about.
  """
  height, width = heat_map.shape
  side = max(1, round(max(height, width) / number))
  padded = np.pad(heat_map, ((0, -height % side), (0, -width % side)))
  rows, columns = (n // side for n in padded.shape)
  sums = padded.reshape(rows, side, columns, side).sum((1, 3))
  return sums.repeat(side, 0).repeat(side, 1)[:height, :width]


def shade(
  image: np.ndarray, heat_map: np.ndarray, scale: Scale
) -> np.ndarray:
  """Returns a heat map (H, W) over its faint image, (H, W, 3) in [0, 1].

  Args:
    image: (H, W, C) in [0, 1].
    heat_map: (H, W).
    scale: of the colours.
  """
  gray = np.clip(image, 0, 1).mean(-1, keepdims=True)
  return scale.colours(heat_map) * (0.72 + 0.28 * gray)


def picture_size(height: int, width: int, side: int = SIDE) -> tuple[int, int]:
  """Returns the height and width in pixels in which an image is shown."""
  longer = max(height, width)
  if longer > 1.3 * side:
    return tuple(max(1, round(n * side / longer)) for n in (height, width))
  return tuple(n * max(1, round(side / longer)) for n in (height, width))


def fitted(pixels: np.ndarray, side: int = SIDE) -> np.ndarray:
  """Returns an image (H, W, C) in [0, 1] as shown, (h, w, 3) uint8."""
  pixels = np.clip(np.nan_to_num(pixels), 0, 1)
  pixels = np.uint8(np.round(255 * pixels))
  if pixels.shape[-1] == 1:
    pixels = np.repeat(pixels, 3, -1)
  height, width = pixels.shape[:2]
  size = picture_size(height, width, side)
  times = size[0] // height
  if times:
    return pixels.repeat(times, 0).repeat(times, 1)
  return np.asarray(
    Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BOX)
  )


def new_figure(width: float, height: float):
  """Returns a figure of about so many inches, of whole pixels."""
  return style.new_figure(*np.ceil(np.array([width, height]) * style.DPI)
                          / style.DPI)


def put(
  figure,
  pixels: np.ndarray,
  left: float,
  bottom: float,
  *,
  mask: np.ndarray | None = None,
  frame: str = style.FAINT,
  side: int = SIDE,
):
  """Puts an image on a figure, each of its pixels on whole ones of the page.

  Args:
    figure: of `new_figure`.
    pixels: (H, W, C) in [0, 1].
    left, bottom: inches.
    mask: (H, W) bool that is outlined.
    frame: colour.
    side: of the picture in pixels.

  Returns:
    The axes.
  """
  shown = fitted(pixels, side)
  height, width = shown.shape[:2]
  snap = lambda inches: round(inches * style.DPI) / style.DPI
  axes = style.add_axes(
    figure, snap(left), snap(bottom), width / style.DPI, height / style.DPI
  )
  axes.imshow(shown, interpolation='nearest', aspect='auto')
  axes.set_xticks([])
  axes.set_yticks([])
  axes.spines[:].set_visible(True)
  axes.spines[:].set_color(frame)
  axes.spines[:].set_linewidth(0.8 if frame == style.FAINT else 2.2)
  if mask is not None and mask.any() and not mask.all():
    _outline(axes, mask, width / mask.shape[1], height / mask.shape[0])
  return axes


def _outline(axes, mask, across, down):
  """Draws the border of a mask, along the edges of pixels."""
  # A border runs where a pixel differs from the next one.
  padded = np.pad(mask.astype(int), 1)
  segments = []
  for row, column in np.argwhere(np.diff(padded[1:-1], axis=1)):
    x = column * across - 0.5
    segments.append([(x, row * down - 0.5), (x, (row + 1) * down - 0.5)])
  for row, column in np.argwhere(np.diff(padded[:, 1:-1], axis=0)):
    x, y = column * across - 0.5, row * down - 0.5
    segments.append([(x, y), (x + across, y)])
  # One polyline with gaps: faster than thousands of lines.
  gap = np.full((len(segments), 1, 2), np.nan)
  points = np.concatenate([np.array(segments), gap], 1).reshape(-1, 2)
  limits = axes.get_xlim(), axes.get_ylim()
  axes.plot(*points.T, color=style.INK, lw=0.7, alpha=0.85)
  axes.set_xlim(limits[0])
  axes.set_ylim(limits[1])


def put_scale(
  figure, left: float, top: float, width: float, scale: Scale
) -> None:
  """Puts the bar of the colours below a picture, its ends named."""
  axes = style.add_axes(figure, left, top - 0.07, width, 0.07)
  steps = np.linspace(scale.lower, scale.upper, 256)[None]
  axes.imshow(scale.colours(steps), aspect='auto', interpolation='nearest')
  axes.set_axis_off()
  named = [(0, 'left', scale.lower), (width, 'right', scale.upper)]
  if scale.signed:
    named.append((width / 2, 'center', 0))
  for place, align, value in named:
    style.add_text(
      figure, left + place, top - 0.10, number(value, plus=scale.signed),
      size=7.5, va='top', ha=align, color=style.MUTED,
    )


def put_answer(
  figure,
  left: float,
  top: float,
  width: float,
  answer: str,
  certainty: float,
  label: str | None = None,
) -> None:
  """Puts certainty bar and answer below a picture, and a label that differs."""
  wrong = label is not None and label != answer
  bar = style.add_axes(figure, left, top - 0.07, width, 0.07)
  bar.axhspan(0, 1, color=style.FAINT, lw=0)
  bar.barh(
    0.5, np.nan_to_num(certainty), 1,
    color=style.WRONG if wrong else style.ALONE,
  )
  bar.set_xlim(0, 1)
  bar.set_ylim(0, 1)
  bar.set_axis_off()
  room = max(4, int((width - 0.4) / 0.075))  # characters beside a number
  style.add_text(
    figure, left, top - 0.10, f'{"✗ " if wrong else ""}'
    f'{style.shorten(answer, room)}', size=8.5, va='top',
    color=style.WRONG_TEXT if wrong else style.INK,
  )
  style.add_text(
    figure, left + width, top - 0.10, f'{certainty:.2f}', size=8.5, va='top',
    ha='right', color=style.MUTED,
  )
  if wrong:
    style.add_text(
      figure, left, top - 0.25, f'is {style.shorten(label, room + 3)}', size=8,
      va='top', color=style.MUTED,
    )


def put_notes(
  figure, left: float, top: float, lines: Sequence[str], size: float = 7.5
) -> None:
  """Puts small lines below each other."""
  for i, line in enumerate(lines):
    style.add_text(
      figure, left, top - 0.135 * i, line, size=size, va='top',
      color=style.MUTED,
    )


def number(value: float | None, plus: bool = False) -> str:
  """Returns a number in few characters, with a typographic minus."""
  if value is None:
    return '–'
  sign = '+' if plus and value > 0 else ''
  text = f'{value:,.0f}' if 100 <= abs(value) < 1e6 else f'{value:.2g}'
  return sign + text.replace('-', '−')


def put_image(
  figure,
  document: Mapping[str, Any],
  arrays: Mapping[str, np.ndarray],
  i: int,
  left: float,
  bottom: float,
  width: float,
) -> None:
  """Puts an image as the network sees it, with label, answer, certainty."""
  image = document['images'][i]
  answer, label = (class_name(document, image[n]) for n in ('answer', 'label'))
  put(
    figure, arrays['images'][i], left, bottom,
    frame=style.FAINT if answer == label else style.WRONG,
  )
  put_answer(
    figure, left, bottom - 0.05, width, answer, image['certainty'], label
  )
  lines = [style.shorten(image['name'], 27)]
  if image['target'] != image['answer']:
    lines = [f'explained: {class_name(document, image["target"])}']
  if answer == label:
    put_notes(figure, left, bottom - 0.31, lines)


def cell(images: np.ndarray, side: int = SIDE) -> tuple[float, float]:
  """Returns the width and height of pictures in inches."""
  height, width = picture_size(*images.shape[1:3], side)
  return width / style.DPI, height / style.DPI


def class_name(document: Mapping[str, Any], k: int) -> str:
  """Returns the name of a class of a document."""
  return document['class_names'][k]
