"""The look of all figures: colours, type, layout in inches, rendering.

Colours carry one meaning each and stay apart under every common colour-vision
deficiency (blue, its tint, vermilion, greys). Figures are made through the
object interface: no global figure registry and no open window. Settings that
matplotlib keeps globally hold only inside `styled` functions.
"""

import io
import re

import matplotlib
import matplotlib.figure
import numpy as np
from PIL import Image

INK = '#1b1f24'
MUTED = '#66707a'
FAINT = '#d5dae0'
ALONE = '#0072b2'
TOTAL = '#a9cfe6'
RIGHT = '#cfe3ee'
WRONG = '#d55e00'
WRONG_TEXT = '#8a3c00'
DOUBT_ALONE = '#7d858d'
DOUBT_TOTAL = '#d3d7db'
SEQUENTIAL = 'Blues'
RESPONSE = 'viridis'

# Raster density: a figure 10 inches wide stays sharp at a README's width.
DPI = 130

_SETTINGS = {
  'font.family': ['DejaVu Sans'],
  'font.size': 10,
  'text.color': INK,
  # File and class names may hold a dollar sign.
  'text.parse_math': False,
  'axes.edgecolor': MUTED,
  'axes.labelcolor': INK,
  'axes.linewidth': 0.8,
  'axes.spines.top': False,
  'axes.spines.right': False,
  'axes.titlesize': 10.5,
  'axes.titlelocation': 'left',
  'axes.unicode_minus': True,
  'xtick.color': MUTED,
  'ytick.color': MUTED,
  'xtick.labelsize': 9,
  'ytick.labelsize': 9,
  'grid.color': FAINT,
  'legend.frameon': False,
  'legend.fontsize': 9,
  'figure.facecolor': 'white',
}

# As a decorator: text takes its font when it is made, ticks when drawn.
styled = matplotlib.rc_context(_SETTINGS)


def new_figure(width: float, height: float) -> matplotlib.figure.Figure:
  """Returns an empty figure, width and height in inches."""
  return matplotlib.figure.Figure(figsize=(width, height))


def add_axes(figure, left, bottom, width, height, **options):
  """Returns new axes at a place given in inches from the lower left."""
  w, h = figure.get_size_inches()
  place = (left / w, bottom / h, width / w, height / h)
  return figure.add_axes(place, **options)


def add_text(figure, x, y, text, **options):
  """Writes on the figure at a place given in inches from the lower left."""
  w, h = figure.get_size_inches()
  return figure.text(x / w, y / h, text, **options)


def add_title(figure, title, subtitle='', color=MUTED):
  """Writes a bold title and a line below it, each cut to the width."""
  width, height = figure.get_size_inches()
  # Characters per inch of these two sizes of type, on average.
  title = shorten(title, int(9 * (width - 0.3)))
  subtitle = shorten(subtitle, int(12 * (width - 0.3)))
  add_text(figure, 0.15, height - 0.12, title, va='top', size=12.5,
           weight='bold')
  add_text(figure, 0.15, height - 0.40, subtitle, va='top', size=10,
           color=color)


def render_png(figure: matplotlib.figure.Figure, dpi: int = DPI) -> bytes:
  """Returns a figure as PNG."""
  buffer = io.BytesIO()
  with matplotlib.rc_context(_SETTINGS):
    figure.savefig(buffer, format='png', dpi=dpi, metadata={'Software': None})
  return buffer.getvalue()


def thumbnail(image: np.ndarray, height: int) -> np.ndarray:
  """Returns an image as 8-bit RGB, at most `height` pixels high.

  Args:
    image: (H, W, C) or (H, W), C = 1 or 3, in [0, 1]; values outside are
      clipped and NaN is black.
    height: Largest height of the result in pixels.

  Returns:
    (h, w, 3) uint8, the aspect of the image kept.

  Raises:
    ValueError: If the image has another shape.
  """
  pixels = np.asarray(image, np.float32)
  if pixels.ndim == 2:
    pixels = pixels[..., None]
  if pixels.ndim != 3 or pixels.shape[-1] not in (1, 3):
    raise ValueError(
      f'image has shape {np.shape(image)}, expected (H, W, 1) or (H, W, 3)'
    )
  pixels = 255 * np.clip(np.nan_to_num(pixels), 0, 1) + 0.5
  pixels = np.repeat(pixels.astype(np.uint8), 4 - pixels.shape[-1], axis=-1)
  scale = height / pixels.shape[0]
  if scale < 1:
    size = (max(1, round(scale * pixels.shape[1])), height)
    shrunk = Image.fromarray(pixels[..., :3])
    pixels = np.asarray(shrunk.resize(size, Image.Resampling.BOX))
  return pixels[..., :3]


def shorten(text: str, length: int) -> str:
  """Returns a text of at most `length` characters, cut in the middle."""
  if len(text) <= length:
    return text
  head = (length - 1) // 2
  return f'{text[:head]}…{text[len(text) - (length - 1 - head):]}'


def wrap(text: str, length: int) -> str:
  """Returns a text in lines of about `length`, cut at blanks and behind `_`."""
  lines = ['']
  for part in re.findall(r'[^ _]+[ _]?|[ _]', text):
    if lines[-1] and len(lines[-1]) + len(part.rstrip()) > length:
      lines.append('')
    lines[-1] += part
  return '\n'.join(line.rstrip() for line in lines)
