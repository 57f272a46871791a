"""What the results of a data set say, in words, not escaped."""

import collections

import numpy as np

from jaxsens.reports import population_results
from jaxsens.reports import sentences

# Images, and reasons, that are written out; the rest are counted.
_NUM_NAMED = 5


def accuracy_sentences(study: population_results.PopulationStudy) -> str:
  """Returns how accurate the model is under the factors and what moves that.

  Args:
    study: The results.

  Returns:
    The text, '' without the indices of the accuracy.
  """
  accuracy = study.accuracy
  if accuracy is None:
    return ''
  unperturbed = sentences.format_share(study.population.correct.mean())
  level = (
    f'The accuracy is {unperturbed} unperturbed and '
    f'{_estimate(accuracy.accuracy, 0)} on average over the factors.'
  )
  if not np.isfinite(accuracy.total.value[0]).all():
    return f'{level} {_no_indices(accuracy)}'
  order = np.argsort(-accuracy.total.value[0], kind='stable')
  clauses = [_lead_clause(study, order)]
  clauses += [
    f'{study.axes[d].name} carries '
    f'{_estimate(accuracy.first_order, (0, d))} alone and '
    f'{_estimate(accuracy.total, (0, d))} in all' for d in order[1:]
  ]
  text = '; '.join(clauses)
  return f'{level} {text[:1].upper()}{text[1:]}.'


def trust_sentences(study: population_results.PopulationStudy) -> str:
  """Returns how many images are trusted, why others are not, and what if.

  Args:
    study: The results.

  Returns:
    The text: counts, the reasons with names, and how far the averages move
    when the images that are not trusted are left out.
  """
  population, num_images = study.population, study.population.num_images
  trusted = np.asarray(population.trusted, bool)
  if trusted.all():
    return f'The indices of all {num_images} images are trusted.'
  text = (
    f'The indices of {trusted.sum()} of {num_images} images are trusted; of '
    f'{num_images - trusted.sum()} they are not: {_causes(population)}.'
  )
  both = np.array([
    aggregates.mean_total.value[0, :, study.output]
    for aggregates in (study.aggregates, study.trusted_aggregates)
  ])  # fmt: skip
  if not np.isfinite(both).all():
    return text
  points = 100 * np.abs(both[1] - both[0]).max()
  return (
    f'{text} Leaving them out moves no mean total index by more than '
    f'{points:.1f} percentage points.'
  )


def undefined_sentence(study: population_results.PopulationStudy) -> str:
  """Returns which images have no indices, '' if all have."""
  names = study.distribution.undefined_names[study.output]
  if not names:
    return ''
  verb = 'image has' if len(names) == 1 else 'images have'
  return (
    f'{len(names)} {verb} no indices, because '
    f'{study.population.output_names[study.output]} does not vary there; no '
    f'average of indices holds them: {_names(names)}.'
  )


def class_sentence(study: population_results.PopulationStudy) -> str:
  """Returns which class is the most fragile.

  Args:
    study: The results.

  Returns:
    The text; it says when another class cannot be told from the first.
  """
  rank, estimate = study.fragility, study.fragility.failure_probability
  known = 1 + np.flatnonzero(np.isfinite(estimate.value[1:]))
  if not len(known):
    return 'No failure probability is known.'
  order = known[np.argsort(-estimate.value[known], kind='stable')]
  first = order[0]
  text = (
    f'The most fragile class is {rank.group_names[first]}: under the factors '
    f'its images fail with a probability of {_estimate(estimate, first)} on '
    f'average, all images with {_estimate(estimate, 0)}'
  )
  if len(order) == 1:
    return f'{text}.'
  last = order[-1]
  text += (
    f', those of {rank.group_names[last]}, the least fragile, with '
    f'{_estimate(estimate, last)}.'
  )
  others = [
    rank.group_names[g] for g in order[1:]
    if not estimate.upper[g] < estimate.lower[first]
  ]
  if others:
    text += f' Its interval overlaps with that of {_listed(others)}.'
  return text


def image_sentence(study: population_results.PopulationStudy) -> str:
  """Returns what moves the output of a single image, on average."""
  k, total = study.output, study.aggregates.mean_total
  value = total.value[0, :, k]
  name = study.population.output_names[k]
  if not np.isfinite(value).all():
    return f'No image has indices of {name}.'
  levels = study.distribution.levels
  clauses = []
  for d in np.argsort(-value, kind='stable'):
    clause = f'{study.population.factor_names[d]} {_estimate(total, (0, d, k))}'
    if 0.25 in levels and 0.75 in levels:
      low, high = (
        study.distribution.total[0, levels.index(level), d, k]
        for level in (0.25, 0.75)
      )
      clause += (
        f' (the middle half of the images {sentences.format_share(low)} to '
        f'{sentences.format_share(high)})'
      )
    clauses.append(clause)
  return (
    f'Image by image, the factors carry on average of the variance of {name}, '
    f'with interactions: {", ".join(clauses)}.'
  )


def _no_indices(accuracy):
  if accuracy.num_images[0] < 2:
    return 'One image is too few for the indices of the accuracy.'
  return 'It has no indices, because it does not vary with the factors.'


def _lead_clause(study, order):
  """What the leading factor carries and how far it takes the accuracy."""
  accuracy, lead = study.accuracy, order[0]
  name = study.axes[lead].name
  effect = accuracy.main_effects[lead].value[0]
  reached = [
    d for d in order[1:]
    if accuracy.total.upper[0, d] >= accuracy.total.lower[0, lead]
  ]
  verb = f'{name} moves it most'
  if reached:
    names = _listed([name, *(study.axes[d].name for d in reached)])
    verb = f'{names} move it most and their intervals overlap'
  subject = f'{name}' if reached else 'it'
  return (
    f'{verb}: {subject} carries {_estimate(accuracy.first_order, (0, lead))} '
    f'of the variance of the accuracy alone and '
    f'{_estimate(accuracy.total, (0, lead))} with interactions, and along it '
    f'the accuracy runs from {sentences.format_share(effect.min())} to '
    f'{sentences.format_share(effect.max())}'
  )


def _causes(population):
  """Why images are not trusted: reason, number, and names of a few."""
  by_reason = collections.defaultdict(list)
  reasons = population.reasons or (None,) * population.num_images
  for name, reason, trusted in zip(
    population.image_names, reasons, population.trusted, strict=True
  ):
    if not trusted:
      by_reason[reason or 'no reason was recorded'].append(name)
  ranked = sorted(by_reason.items(), key=lambda item: -len(item[1]))
  written = [
    f'{reason} ({len(names)}: {_names(names)})'
    for reason, names in ranked[:_NUM_NAMED]
  ]
  others = sum(len(names) for _, names in ranked[_NUM_NAMED:])
  written += [f'other reasons ({others})'] if others else []
  return '; '.join(written)


def _names(names):
  more = len(names) - _NUM_NAMED
  shown = ', '.join(names[:_NUM_NAMED])
  return f'{shown} and {more} more' if more > 0 else shown


def _estimate(estimate, where):
  return sentences.format_share(
    estimate.value[where]
  ) + sentences.format_interval(estimate.lower[where], estimate.upper[where])


def _listed(words):
  return ', '.join(words[:-1]) + f' and {words[-1]}' if words[1:] else words[0]
