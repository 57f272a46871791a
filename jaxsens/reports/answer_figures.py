"""Pictures with what a classifier says of them, and how sure it is.

The bar below a picture is its certainty, from 0 to 1: blue where the answer is
accepted, grey where it is refused, with a tick at the least certainty that is
accepted. A wrong answer is framed, crossed out and followed by the label.
"""

from collections.abc import Sequence

import matplotlib.figure
import numpy as np

from jaxsens.reports import style

_PER_ROW = 6
_PITCH, _SIDE, _TALL = 1.75, 1.6, 2.35
_LARGE = 3.6  # inches, the wider side of a single picture


@style.styled
def plot_answers(
  images: Sequence[np.ndarray],
  answers: Sequence[str],
  truths: Sequence[str],
  certainties: Sequence[float],
  title: str,
  *,
  threshold: float | None = None,
) -> matplotlib.figure.Figure:
  """Returns images with answer and certainty bar.

  Args:
    images: N of (H, W, C) in [0, 1].
    answers: class names answered.
    truths: class names of the labels.
    certainties: in [0, 1].
    title: what these images are.
    threshold: least certainty that is accepted; None accepts all.
  """
  columns = min(_PER_ROW, len(images))
  rows = -(-len(images) // columns)
  figure = style.new_figure(
    max(6.6, _PITCH * columns + 0.3), _TALL * rows + 0.75
  )
  refused = '' if threshold is None else ', grey: refused, below the tick'
  style.add_title(figure, title, f'bar: certainty{refused}; ✗: not the label')
  for i, image in enumerate(images):
    left = 0.15 + _PITCH * (i % columns)
    bottom = _TALL * (rows - i // columns - 1) + 0.1
    wrong = answers[i] != truths[i]
    _draw_image(figure, image, left, bottom + 0.6, _SIDE, _SIDE, wrong)
    _draw_bar(
      figure, left, bottom + 0.42, _SIDE, 0.1, certainties[i], threshold
    )
    style.add_text(
      figure, left, bottom + 0.23,
      f'{"✗ " if wrong else ""}{style.shorten(answers[i], 21)}', size=8.5,
      color=style.WRONG_TEXT if wrong else style.INK,
    )
    below = f'{certainties[i]:.2f}' + (
      f', is {style.shorten(truths[i], 16)}' if wrong else ''
    )
    style.add_text(figure, left, bottom + 0.06, below, size=8,
                   color=style.MUTED)
  return figure


@style.styled
def plot_answer(
  image: np.ndarray,
  answer: str,
  truth: str,
  certainty: float,
  *,
  name: str = '',
  threshold: float | None = None,
) -> matplotlib.figure.Figure:
  """Returns one image, large, with its answer and certainty bar.

  Args:
    image: (H, W, C) in [0, 1].
    answer: class name answered.
    truth: class name of the label.
    certainty: in [0, 1].
    name: of the image.
    threshold: least certainty that is accepted; None accepts all.
  """
  height, width = np.shape(image)[:2]
  scale = _LARGE / max(height, width)
  tall, wide = max(scale * height, 0.5), max(scale * width, 0.5)
  figure = style.new_figure(_LARGE + 0.3, tall + 1.45)
  wrong = answer != truth
  style.add_title(
    figure, f'{"✗ " if wrong else ""}{answer}',
    f'is {truth}' if wrong else 'as the label says',
    style.WRONG_TEXT if wrong else style.MUTED,
  )
  left = 0.15 + (_LARGE - wide) / 2
  _draw_image(figure, image, left, 0.78, wide, tall, wrong)
  _draw_bar(figure, 0.15, 0.5, _LARGE, 0.16, certainty, threshold)
  text = f'certainty {certainty:.3f}'
  if threshold is not None:
    verdict = 'accepted' if certainty >= threshold else 'refused'
    text += f', {verdict}: threshold {threshold:.3f}'
  style.add_text(figure, 0.15, 0.28, text, size=9)
  style.add_text(figure, 0.15, 0.08, style.shorten(name, 48), size=8,
                 color=style.MUTED)
  return figure


def _draw_image(figure, image, left, bottom, width, height, wrong):
  axes = style.add_axes(figure, left, bottom, width, height)
  pixels = style.thumbnail(image, round(height * style.DPI))
  # Few pixels stay what they are, squares.
  axes.imshow(pixels, interpolation='nearest')
  axes.set_xticks([])
  axes.set_yticks([])
  axes.spines[:].set_visible(True)
  axes.spines[:].set_color(style.WRONG if wrong else style.FAINT)
  axes.spines[:].set_linewidth(2.5 if wrong else 0.8)


def _draw_bar(figure, left, bottom, width, height, certainty, threshold):
  """Draws a certainty from 0 to 1; NaN has no bar and is refused."""
  bar = style.add_axes(figure, left, bottom, width, height)
  bar.axhspan(0, 1, color=style.FAINT, lw=0)
  accepted = threshold is None or certainty >= threshold
  bar.barh(
    0.5, np.nan_to_num(certainty), 1,
    color=style.ALONE if accepted else style.DOUBT_ALONE,
  )
  if threshold is not None:
    bar.plot(
      [np.clip(threshold, 0, 1)] * 2, [-0.45, 1.45], color=style.INK, lw=1.6,
      clip_on=False, solid_capstyle='butt',
    )
  bar.set_xlim(0, 1)
  bar.set_ylim(0, 1)
  bar.set_axis_off()
