"""What a result says, in words: the answer, the refusal, where it breaks.

Every function is pure, takes results and returns plain text, not escaped.
"""

import math

import numpy as np

from jaxsens.reports import results

# Interactions below this share of the variance are not worth a clause.
_NOTABLE_SHARE = 0.01
# Factors that are named one by one; the rest are bounded together.
_NUM_NAMED = 4


def format_value(value: float, unit: str = '', *, signed: bool = False) -> str:
  """Returns a physical value with three digits and its unit."""
  text = f'{value:{"+" if signed and value else ""}.3g}'
  return f'{text} {unit}'.strip()


def format_share(value: float) -> str:
  """Returns a share of the variance in percent, 'undefined' if it is NaN."""
  if not math.isfinite(value):
    return 'undefined'
  percent = 100 * value
  return '<1 %' if 0 < percent < 0.5 else f'{percent:.0f} %'


def format_interval(lower: float, upper: float) -> str:
  """Returns ' [lower, upper]' in percent, '' if an end is unknown."""
  if not (math.isfinite(lower) and math.isfinite(upper)):
    return ''
  # A zero of either sign prints as 0.
  lower, upper = round(100 * lower) + 0, round(100 * upper) + 0
  return f' [{lower}, {upper}]'


def answer_sentence(image: results.ImageResult) -> str:
  """Returns one sentence that answers which factor moves the answer.

  It names the factors in the order of their total indices with both indices
  and their intervals, the largest interaction and the first errors. If the
  indices are not to be trusted or undefined it begins with a refusal and says
  what to raise; undefined indices are not ranked.

  Args:
    image: The results of one image.

  Returns:
    The text: at most one refusal, then the sentence.
  """
  clauses = []
  if image.defined:
    clauses += [_ranking_clause(image), _interaction_clause(image)]
  clauses.append(error_clause(image))
  sentence = '; '.join(clause for clause in clauses if clause)
  sentence = f'{sentence[:1].upper()}{sentence[1:]}.' if sentence else ''
  if image.accepted or not image.defined:
    return f'{refusal(image)} {sentence}'.strip()
  return f'{refusal(image)} Taken at face value: {sentence}'


def refusal(image: results.ImageResult) -> str:
  """Returns why the main indices are not to be trusted and what to raise.

  Args:
    image: The results of one image.

  Returns:
    'Do not trust these indices: ...', or '' if they are accepted.
  """
  cause = doubt(image)
  return f'Do not trust these indices: {cause}' if cause else ''


def doubt(image: results.ImageResult) -> str:
  """Returns the cause and the advice of a refusal, '' if accepted."""
  if image.accepted:
    return ''
  k, name = image.main_output, image.main_name
  if not image.defined:
    reason = image.reasons[k] or 'no reason was recorded'
    cause = f'those of {name} are undefined ({reason})'
  elif not image.sufficient(k) and image.max_half_width is not None:
    cause = (
      f'the intervals of {name} reach {image.check(k)}, more than '
      f'±{image.max_half_width:g}'
    )
  elif not image.sufficient(k):
    cause = (
      f'Q2 of {name} on held-out nodes is {image.q2[k]:.2f}, '
      f'below {results.MINIMUM_Q2:g}'
    )
  else:
    cause = f'the checks of {name} failed (Q2 is {image.q2[k]:.2f})'
  return f'{"; ".join([cause, *image.advice])}.'


def doubtful_outputs(image: results.ImageResult) -> tuple[int, ...]:
  """Returns the outputs, the main one apart, that fail their check."""
  return tuple(
    k for k, reason in enumerate(image.reasons)
    if reason is None and not image.sufficient(k) and k != image.main_output
  )


def sharpness(image: results.ImageResult) -> str:
  """Returns the factors along which the main output is sharp, '' if none.

  Args:
    image: The results of one image.

  Returns:
    For each such factor, the sharpest first, the degree that a polynomial
    needs and how its coefficients fall.
  """
  slow = [
    (name, entry) for name, entry in image.decay.items() if entry['slow']
  ]
  slow.sort(key=lambda named: -named[1]['required_degree'])
  return ', '.join(
    f'{name} (degree {entry["required_degree"]:.0f}, coefficients fall like '
    f'{entry["fall"]})' for name, entry in slow
  )


def error_clause(image: results.ImageResult) -> str:
  """Returns where the network first errs along each factor, '' if unknown."""
  if not image.correct:
    return (
      f'the unperturbed image is already taken for {image.prediction_name} '
      f'({100 * image.confidence:.0f} %) instead of {image.label_name}'
    )
  wrong = [c for c in image.curves if first_errors(c)]
  safe = [c.name for c in image.curves if not first_errors(c)]
  clauses = []
  if wrong:
    places = [f'at {c.name} {" and ".join(first_errors(c))}' for c in wrong]
    clauses.append(f'the model errs first {", ".join(places)}')
  if safe:
    subject = 'it never errs' if wrong else 'the model never errs'
    clauses.append(f'{subject} within the range of {_listed(safe)} alone')
  return '; '.join(clauses)


def first_errors(curve: results.FactorCurve) -> list[str]:
  """Returns the first misclassified values below and above the identity."""
  ends = (curve.first_error_below, curve.first_error_above)
  return [
    format_value(end, curve.unit, signed=curve.identity == 0)
    for end in ends if end is not None
  ]


def _ranking_clause(image):
  k = image.main_output
  order = np.argsort(-image.total[:, k], kind='stable')
  first, others = order[0], order[1:]
  lead = image.factor_names[first]
  moments = (
    f'(mean {image.mean[k]:.2g}, '
    f'standard deviation {math.sqrt(max(image.variance[k], 0)):.2g})'
  )
  whole = f'the variance of {image.main_name} {moments}'
  if not len(others):
    return f'{lead} is the only factor and carries all of {whole}'
  tie = _tie(image, first, others)
  verb = (
    f'{lead} and {tie} move the answer most and their intervals overlap: '
    f'{lead} carries' if tie else f'{lead} moves the answer most: it carries'
  )
  shares = f'{_share(image, "first_order", first)} of {whole} alone and '
  shares += f'{_share(image, "total", first)} with its interactions'
  return '; '.join([f'{verb} {shares}', *_follower_clauses(image, others)])


def _tie(image, first, others):
  """Returns the second factor if the first cannot be told from it."""
  k, second = image.main_output, others[0]
  overlap = image.total_upper[second, k] >= image.total_lower[first, k]
  return image.factor_names[second] if overlap else ''


def _follower_clauses(image, others):
  named, rest = others[:_NUM_NAMED - 1], others[_NUM_NAMED - 1:]
  clauses = [
    f'{image.factor_names[i]} carries {_share(image, "first_order", i)} alone '
    f'and {_share(image, "total", i)} in all'
    for i in named
  ]
  clauses[0] = f'next, {clauses[0]}'
  if len(rest):
    most = format_share(image.total[rest, image.main_output].max())
    clauses.append(
      f'{_listed([image.factor_names[i] for i in rest])} at most {most} in all'
    )
  return clauses


def _interaction_clause(image):
  k = image.main_output
  joint = [
    (image.subset_values[s, k], subset)
    for s, subset in enumerate(image.subsets) if len(subset) > 1
  ]
  value, subset = max(joint, default=(0.0, ()))
  if not value >= _NOTABLE_SHARE:
    return ''
  names = _listed([image.factor_names[i] for i in subset])
  return f'the largest interaction, of {names}, carries {format_share(value)}'


def _share(image, index, i):
  k = image.main_output
  value = getattr(image, index)[i, k]
  lower = getattr(image, f'{index}_lower')[i, k]
  upper = getattr(image, f'{index}_upper')[i, k]
  return format_share(value) + format_interval(lower, upper)


def _listed(words):
  return ', '.join(words[:-1]) + f' and {words[-1]}' if words[1:] else words[0]
