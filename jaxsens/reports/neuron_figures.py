"""Figures of single neurons and of regions of the image.

They draw the parts of a result, see `inspection_page.render`.
"""

from collections.abc import Mapping
from collections.abc import Sequence
from typing import Any

from matplotlib import lines
import matplotlib.figure
import numpy as np

from jaxsens.reports import style

_WIDTH = 10.0
_SHOWN_CHANNELS = 6


@style.styled
def plot_neurons(
  parts: Sequence[Mapping[str, Any]],
) -> matplotlib.figure.Figure:
  """Returns the images that excite neurons most, a row per layer."""
  columns = max(len(part['channels']) for part in parts)
  name_width = 1.25
  cell = min(1.45, (_WIDTH - name_width - 0.1) / columns)
  shape = np.shape(parts[0]['images'])[1:3]
  tall = (cell - 0.08) * min(shape[0] / shape[1], 2)
  step = tall + 0.42
  height = 0.72 + step * len(parts)
  figure = style.new_figure(_WIDTH, height)
  style.add_title(
    figure, 'Images that excite single neurons most',
    'by gradient ascent; below: channel (the class that it is highest for), '
    'activation of the start and reached',
  )
  for r, part in enumerate(parts):
    bottom = height - 0.68 - (r + 1) * step
    style.add_text(
      figure, 0.15, bottom + 0.38 + tall / 2,
      style.wrap(style.shorten(part['layer'], 30), 13), va='center', size=9,
    )
    for c, channel in enumerate(part['channels']):
      left = name_width + c * cell
      axes = style.add_axes(figure, left, bottom + 0.38, cell - 0.08, tall)
      axes.imshow(
        style.thumbnail(part['images'][c], 1000), interpolation='nearest',
        aspect='auto',
      )
      axes.set_axis_off()
      course = (
        'dead' if part['dead'][c] else
        f'{part["starts"][c]:.2g} → {part["activations"][c]:.3g}'
        .replace('-', '−')
      )
      style.add_text(
        figure, left, bottom + 0.35,
        f'{style.shorten(str(channel), int(cell * 16))}\n{course}', size=7,
        va='top', color=style.MUTED,
      )
  return figure


@style.styled
def plot_courses(
  parts: Sequence[Mapping[str, Any]],
) -> matplotlib.figure.Figure:
  """Returns the activations over the steps of the ascent, a panel per layer."""
  columns = min(4, len(parts))
  count = -(-len(parts) // columns)
  cell, tall = (_WIDTH - 0.2) / columns, 1.35
  height = 0.75 + count * (tall + 0.75)
  figure = style.new_figure(_WIDTH, height)
  style.add_title(
    figure, 'The ascent: activation over the steps', 'a line per neuron'
  )
  for i, part in enumerate(parts):
    r, c = divmod(i, columns)
    axes = style.add_axes(
      figure, 0.6 + c * cell, height - 0.75 - (r + 1) * (tall + 0.75) + 0.45,
      cell - 0.75, tall,
    )
    for course in np.asarray(part['courses'], float):
      axes.plot(course, color=style.ALONE, lw=0.9, alpha=0.7)
    axes.set_title(style.shorten(part['layer'], 24), size=9)
    axes.tick_params(labelsize=7.5)
    if i + columns >= len(parts):
      axes.set_xlabel('step', size=8.5)
  return figure


@style.styled
def plot_channels(result: Mapping[str, Any]) -> matplotlib.figure.Figure:
  """Returns mean and spread of the channels that differ most, two groups."""
  parts = result['layers']
  columns = min(3, len(parts))
  count = -(-len(parts) // columns)
  cell, tall = (_WIDTH - 0.1) / columns, 1.6
  height = 1.05 + count * (tall + 0.68)
  figure = style.new_figure(_WIDTH, height)
  style.add_title(
    figure, 'The channels that differ most between two groups of images',
    'mean over the pixels; dot and line: mean ± standard deviation over the '
    'images; largest |t| to the left',
  )
  groups = (
    (result['first'], style.WRONG, 'first', -0.13),
    (result['second'], style.ALONE, 'second', 0.13),
  )
  for i, part in enumerate(parts):
    r, c = divmod(i, columns)
    axes = style.add_axes(
      figure, 0.6 + c * cell, height - 1.05 - (r + 1) * (tall + 0.68) + 0.4,
      cell - 0.75, tall,
    )
    chosen = part['top'][:_SHOWN_CHANNELS]
    places = np.arange(len(chosen))
    for _, color, name, shift in groups:
      mean, std = (
        np.array([one[f'{name}_{what}'] for one in chosen])
        for what in ('mean', 'std')
      )
      axes.vlines(places + shift, mean - std, mean + std, color=color, lw=1.6)
      axes.scatter(places + shift, mean, 16, color=color, zorder=3)
    axes.set_xticks(places, [str(one['channel']) for one in chosen])
    axes.set_xlim(-0.5, _SHOWN_CHANNELS - 0.5)
    axes.tick_params(labelsize=8)
    axes.set_title(
      f'{style.shorten(part["layer"], 20)}: {part["num_different"]} of '
      f'{part["num_channels"]} differ', size=9,
    )
    axes.grid(axis='y')
    axes.set_axisbelow(True)
  handles = [
    lines.Line2D([], [], marker='o', ms=4, color=color, label=name)
    for name, color, _, _ in groups
  ]
  figure.legend(
    handles=handles, ncols=2, loc='upper left',
    bbox_to_anchor=(0.005, 1 - 0.57 / height),
  )
  return figure


@style.styled
def plot_region(part: Mapping[str, Any]) -> matplotlib.figure.Figure:
  """Returns images with and without a region, and the change of the score."""
  examples = part['examples']
  cell = 1.3
  shape = np.shape(examples[0]['image'])[:2]
  tall = min((cell - 0.08) * shape[0] / shape[1], 2.0)
  pictures = 2 * (tall + 0.08) + 0.62
  height = 0.72 + pictures + 2.35
  figure = style.new_figure(_WIDTH, height)
  style.add_title(
    figure, f'What the {part["kind"]} of the images do to the answer',
    f'replaced by {part["fill"]}; the largest changes of the '
    f'{part["quantity"]} of the answer first',
  )
  for c, example in enumerate(examples):
    left, top = 0.95 + c * (cell + 0.02), height - 0.7
    for r, name in enumerate(('image', 'replaced')):
      axes = style.add_axes(
        figure, left, top - (r + 1) * (tall + 0.08), cell - 0.08, tall
      )
      axes.imshow(style.thumbnail(example[name], 400), aspect='auto')
      axes.contour(
        np.asarray(example['mask'], float), [0.5], colors=style.WRONG,
        linewidths=0.8,
      )
      axes.set_axis_off()
    style.add_text(
      figure, left, top - 2 * (tall + 0.08) - 0.06,
      f'{style.shorten(example["answer_before"], 18)}\n'
      f'{example["before"]:.3f} → {example["after"]:.3f}' + (
        f'\nnow {style.shorten(example["answer_after"], 14)}'
        if example['answer_after'] != example['answer_before'] else ''
      ), size=7.5, va='top', color=style.MUTED,
    )
  for r, name in enumerate(('as it is', 'without')):
    style.add_text(
      figure, 0.15, height - 0.7 - (r + 0.5) * (tall + 0.08), name,
      va='center', size=9,
    )
  axes = style.add_axes(figure, 0.95, 0.55, _WIDTH - 3.4, 1.55)
  areas = 100 * np.asarray(part['areas'])
  axes.axhline(0, color=style.MUTED, lw=0.8)
  marks = {}
  for name, color, filled in (
    ('control_changes', style.MUTED, False), ('changes', style.ALONE, True)
  ):
    marks[name] = axes.scatter(
      areas, part[name], 16, color=color if filled else 'none',
      edgecolor=color, lw=0.8,
      label='the region' if filled else 'the same shape elsewhere',
    )
  axes.set_xlabel('region in % of the image')
  axes.set_ylabel(f'change of {part["quantity"]}')
  axes.legend(
    handles=[marks['changes'], marks['control_changes']], loc='center left',
    bbox_to_anchor=(1.01, 0.5),
  )
  axes.grid(axis='y')
  axes.set_axisbelow(True)
  return figure
