"""One self-contained page about a data set.

The first lines say what would spoil a result: images or groups in two parts,
equal images with different labels, classes without images.
"""

from collections.abc import Mapping
import os
import pathlib

import numpy as np

from jaxsens import files
from jaxsens.reports import data_results
from jaxsens.reports import page

_CAPTIONS = {
  'counts': 'Images of each class; the parts end to end.',
  'examples': 'Some images of each class, drawn at random.',
  'mean_images': 'Mean image of each class, of thumbnails of a common size.',
  'histograms': 'Share of pixels at each level, per channel.',
  'components': 'Places of the thumbnails in the two directions in which they '
                'differ most. What separates here is brightness and layout, '
                'not yet the class.',
  'pairs': 'The closest pairs of images.',
}
_MANY = 20


def write_page(
  path: str | os.PathLike,
  result: data_results.DataResult,
  figures: Mapping[str, bytes],
) -> pathlib.Path:
  """Writes the page of a data set as one HTML file.

  Args:
    path: Where to write.
    result: What is known of the data set.
    figures: PNG files by stem, see `data_figures`.

  Returns:
    The path.
  """
  body = (
    f'<h1>{page.text(result.title)}</h1>\n'
    + _verdict(result)
    + f'<p>{page.text(result.line)}.</p>\n'
    + _facts(result)
    + _section('Classes and parts', _counts(result), figures,
               'counts', 'examples', 'mean_images')
    + _section('Levels', _levels(result), figures, 'histograms')
    + _section('Sizes', _sizes(result), figures)
    + _section('Principal components', '', figures, 'components')
    + _section('Duplicates and leakage', _duplicates(result), figures, 'pairs')
  )
  return files.write_text(path, page.document(result.title, body))


def faults(result: data_results.DataResult) -> list[str]:
  """Returns what would spoil a result, in sentences; none if all is well."""
  found = []
  if result.leaking_duplicates:
    found.append(
      f'{_count(len(result.leaking_duplicates), "image")} with equal pixels in '
      'more than one part.'
    )
  if result.leaking_groups:
    found.append(
      f'{_count(len(result.leaking_groups), "group")} (clips or copies) in '
      'more than one part.'
    )
  if result.near_across:
    found.append(
      f'{_count(len(result.near_across), "pair")} of nearly equal images in '
      f'different parts (correlation at least {result.threshold:g}).'
    )
  if result.mislabelled:
    found.append(
      f'{_count(len(result.mislabelled), "image")} with equal pixels and '
      'different labels.'
    )
  empty = [
    f'{name} in {part}'
    for part, row in zip(result.parts, result.counts, strict=True) if row.sum()
    for name, n in zip(result.class_names, row, strict=True) if not n
  ]
  if empty:
    found.append(f'Classes without images: {", ".join(empty)}.')
  return found


def _verdict(result):
  found = faults(result)
  if not found:
    return (
      '<p class="verdict good"><strong>No fault found.</strong> No image, '
      'near-copy or group is in two parts, and every class is in every part.'
      '</p>\n'
    )
  items = ''.join(f'<li>{page.text(fault)}</li>\n' for fault in found)
  return (
    '<div class="verdict bad"><strong>To know before measuring:</strong>\n'
    f'<ul>\n{items}</ul></div>\n'
  )


def _facts(result):
  items = ''.join(
    f'<dt>{page.text(part)}</dt><dd>{page.text(what)}</dd>\n'
    for part, what in result.descriptions.items()
  )
  return f'<dl class="facts">\n{items}</dl>\n'


def _section(title, content, figures, *stems):
  pictures = ''.join(
    page.picture(figures[stem], _CAPTIONS[stem], _CAPTIONS[stem])
    for stem in stems if stem in figures
  )
  return (
    f'<section><h2>{page.text(title)}</h2>\n{content}{pictures}</section>\n'
  )


def _counts(result):
  rows = [
    [page.cell(name), *(page.cell(n) for n in column), page.cell(column.sum()),
     page.cell(f'{100 * column.sum() / max(result.counts.sum(), 1):.1f} %')]
    for name, column in zip(result.class_names, result.counts.T, strict=True)
  ]
  rows.append([
    page.cell('all'), *(page.cell(n) for n in result.counts.sum(1)),
    page.cell(result.counts.sum()), page.cell('100 %'),
  ])
  return page.table(['class', *result.parts, 'all', 'share'], rows)


def _levels(result):
  rows = [
    [page.cell(label), *(page.cell(f'{v:.4f}') for v in values)]
    for label, values in (
      ('mean over all pixels', result.mean),
      ('standard deviation over all pixels', result.std_of_pixels),
      ("mean of the images' own standard deviations",
       result.mean_std_of_images),
    )
  ]
  rows += [
    [page.cell(f'mean of {name}'),
     *(page.cell('–' if np.isnan(v) else f'{v:.4f}') for v in values)]
    for name, values in zip(result.class_names, result.class_means, strict=True)
  ]
  note = (
    '<p class="note">Levels in [0, 1]. To normalise, divide by the standard '
    'deviation over all pixels; the mean of those of single images leaves out '
    'how the images differ in brightness.</p>\n'
  )
  return page.table(['', *result.channel_names], rows) + note


def _sizes(result):
  rows = [
    [page.cell(f'{h} x {w}'), page.cell(n)]
    for (h, w), n in result.sizes[:_MANY]
  ]
  more = len(result.sizes) - _MANY
  note = f'<p class="note">and {more} other sizes.</p>\n' if more > 0 else ''
  return page.table(['height x width', 'images'], rows) + note


def _duplicates(result):
  copies = sum(map(len, result.duplicates)) - len(result.duplicates)
  limit = ' at least' if result.truncated else ''
  text = (
    f'<p>{_count(copies, "exact duplicate")}. '
    f'{_count(result.num_groups, "group")} of several images. Nearly equal, '
    f'but not equal:{limit} '
    f'{_count(len(result.near), "pair")} with a correlation of their '
    f'thumbnails of at least {result.threshold:g}, '
    f'{len(result.near_across)} of them in different parts. Whether such a '
    'pair is one scene twice, the pictures tell: plain images, as of a single '
    'scratch, resemble each other as well.</p>\n'
  )
  rows = [
    [page.cell(', '.join(names), 'text'),
     page.cell('yes' if names in result.leaking_duplicates else 'no'),
     page.cell('yes' if names in result.mislabelled else 'no')]
    for names in result.duplicates[:_MANY]
  ]
  if rows:
    text += '<h3>Equal pixels</h3>\n' + page.table(
      ['images', 'several parts', 'several labels'], rows
    ) + _more(len(result.duplicates))
  if result.leaking_groups:
    text += '<h3>Groups in several parts</h3>\n' + page.table(
      ['group', 'parts'],
      [[page.cell(group), page.cell(', '.join(parts))]
       for group, parts in result.leaking_groups[:_MANY]],
    ) + _more(len(result.leaking_groups))
  if result.near:
    rows = [
      [*(page.cell(f'{name} ({label})', 'text') for name, label
         in zip(pair.names, pair.classes, strict=True)),
       page.cell(f'{pair.correlation:.4f}', 'wrong' if pair.across else '')]
      for pair in result.ordered_pairs[:_MANY]
    ]
    text += '<h3>Nearly equal</h3>\n' + page.table(
      ['first', 'second', 'correlation'], rows, ('first', 'second')
    ) + _more(len(result.near))
  return text


def _more(number):
  more = number - _MANY
  return f'<p class="note">and {more} more.</p>\n' if more > 0 else ''


def _count(number, noun):
  return f'{number} {noun}{"" if number == 1 else "s"}'
