"""The perturbations that a factor may drive, by name.

Every family has its own module, which lists what it has in `PERTURBATIONS`.
`register` adds a perturbation of one's own; the names of its parameters can
then be used in a `Factor`.
"""

import difflib
import itertools

from jaxsens.perturbations import camera
from jaxsens.perturbations import colour
from jaxsens.perturbations import dirt
from jaxsens.perturbations import distortions
from jaxsens.perturbations import elastic
from jaxsens.perturbations import homographies
from jaxsens.perturbations import illumination
from jaxsens.perturbations import jpeg
from jaxsens.perturbations import noise
from jaxsens.perturbations import optics
from jaxsens.perturbations import perspectives
from jaxsens.perturbations import perturbation as perturbation_lib
from jaxsens.perturbations import photometry
from jaxsens.perturbations import sensor
from jaxsens.perturbations import sensor_noise
from jaxsens.perturbations import severity
from jaxsens.perturbations import splashes
from jaxsens.perturbations import weather

Parameter = perturbation_lib.Parameter
Perturbation = perturbation_lib.Perturbation

_FAMILIES = (
  homographies, perspectives, distortions, photometry, colour, illumination,
  optics, noise, sensor, jpeg, elastic, weather, dirt, splashes, camera,
  sensor_noise,
)
_REGISTRY: dict[str, Perturbation] = {}
_PARAMETERS: dict[str, tuple[Perturbation, Parameter]] = {}


def register(perturbation: Perturbation) -> Perturbation:
  """Adds a perturbation.

  Raises:
    ValueError: another one has its name or that of one of its parameters.
  """
  known = _REGISTRY.get(perturbation.name)
  if known is not None and known != perturbation:
    raise ValueError(
      f'perturbation {perturbation.name!r} is already registered'
    )
  for parameter in perturbation.parameters:
    owner = _PARAMETERS.get(parameter.name, (perturbation,))[0]
    if owner.name != perturbation.name:
      raise ValueError(
        f'perturbation {perturbation.name!r}: parameter {parameter.name!r} is '
        f'already registered by {owner.name!r}'
      )
  _REGISTRY[perturbation.name] = perturbation
  for parameter in perturbation.parameters:
    _PARAMETERS[parameter.name] = perturbation, parameter
  return perturbation


def get(name: str) -> Perturbation:
  """Returns the perturbation of that name.

  Raises:
    KeyError: there is none; suggests the nearest and lists all.
  """
  if name not in _REGISTRY:
    raise KeyError(_unknown('perturbation', name, tuple(sorted(_REGISTRY))))
  return _REGISTRY[name]


def parameter(name: str) -> tuple[Perturbation, Parameter]:
  """Returns the parameter that a factor of that name drives, and its owner.

  Raises:
    KeyError: there is none; suggests the nearest and lists all.
  """
  if name not in _PARAMETERS:
    raise KeyError(_unknown('factor', name, tuple(sorted(_PARAMETERS))))
  return _PARAMETERS[name]


def names() -> tuple[str, ...]:
  """Returns the registered names in alphabetical order.

  The severities of published benchmarks are not among them, though factors may
  be named after them; see `severity.PERTURBATIONS`.
  """
  published = {found.name for found in severity.PERTURBATIONS}
  return tuple(sorted(set(_REGISTRY) - published))


def parameter_names() -> tuple[str, ...]:
  """Returns the names that factors may have; of severities see `names`."""
  listed = set(names())
  return tuple(sorted(
    name for name, (owner, _) in _PARAMETERS.items() if owner.name in listed
  ))


def find_by_symptom(text: str) -> tuple[Perturbation, ...]:
  """Returns what may be behind a symptom, the best match first.

  Args:
    text: what an operator says, for instance 'the housing vibrates'.

  Returns:
    Perturbations that share a word of four letters or more with the text in
    name, symptoms or description.
  """
  asked = _words(text)
  listed = names()
  scores = {
    name: 3 * len(asked & _words(' '.join(found.symptoms)))
    + 2 * len(asked & _words(name.replace('_', ' ')))
    + len(asked & _words(found.happens))
    for name, found in _REGISTRY.items() if name in listed
  }
  best = sorted(scores, key=lambda name: (-scores[name], name))
  return tuple(_REGISTRY[name] for name in best if scores[name])


def _words(text: str) -> set[str]:
  """Stems of the words of four letters or more, in lower case."""
  letters = ''.join(c if c.isalpha() else ' ' for c in text.lower())
  return {word[:5] for word in letters.split() if len(word) >= 4}


def _unknown(what: str, name: str, known: tuple[str, ...]) -> str:
  near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
  suggestion = f'; did you mean {" or ".join(map(repr, near))}?' if near else ''
  listed = ', '.join(n for n in known if n in set(parameter_names()))
  return f'unknown {what} {name!r}{suggestion} Known: {listed}'


for _perturbation in itertools.chain.from_iterable(
  family.PERTURBATIONS for family in (*_FAMILIES, severity)
):
  register(_perturbation)
