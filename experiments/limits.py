"""How far an image may be moved: failure, safe ranges, worst case, moments."""

import hashlib
import json
import pathlib

import jax
from ml_collections import ConfigDict
import numpy as np

from jaxsens import classifiers
from jaxsens import factors
from jaxsens import files
from jaxsens import operating_range
from jaxsens import quantities as quantities_lib
from jaxsens import sensitivity
from jaxsens import worst_case
from jaxsens.data import image_sets
from jaxsens.gpc import moments
from jaxsens.gpc import statistics
from jaxsens.perturbations import chains

_QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
# Cells per factor of the search for boxes, and points beyond three factors.
_NUM_CELLS = 24
_NUM_POINTS = 2**12
# Gradient steps of each ascent.
_NUM_STEPS = 15


def find_or_restore(
  folder: pathlib.Path,
  key: jax.Array,
  key_noise: jax.Array,
  options: ConfigDict,
  classifier: classifiers.Classifier,
  chain: chains.Chain,
  frames: image_sets.ImageSet,
  i: int,
  space: factors.FactorSpace,
  quantities: quantities_lib.Quantities,
  answer: sensitivity.Sensitivity,
) -> dict:
  """Returns what `find` does, from its file where nothing has changed."""
  parts = [
    jax.random.key_data(key).tolist(),
    jax.random.key_data(key_noise).tolist(), options.to_json(), frames.names[i],
    int(frames.labels[i]), chain.describe(), space.describe(),
    quantities.output_names, answer.method,
  ]
  # The indices of all quantities stand for network, nodes and surrogate.
  arrays = answer.nodes, answer.indices.total, answer.indices.mean
  digest = hashlib.sha256(json.dumps(parts).encode())
  for array in arrays:
    digest.update(np.ascontiguousarray(array).tobytes())
  path = folder / f'{i:03d}-{digest.hexdigest()[:16]}.json'
  if path.exists():
    return json.loads(path.read_text())
  found = find(
    key, key_noise, options, classifier, chain, frames, i, space, quantities,
    answer,
  )
  files.write_text(path, json.dumps(
    {'image': frames.names[i], **found}, indent=2
  ))
  return found


def find(
  key: jax.Array,
  key_noise: jax.Array,
  options: ConfigDict,
  classifier: classifiers.Classifier,
  chain: chains.Chain,
  frames: image_sets.ImageSet,
  i: int,
  space: factors.FactorSpace,
  quantities: quantities_lib.Quantities,
  answer: sensitivity.Sensitivity,
) -> dict:
  """Returns what limits the i-th frame, fit for JSON.

  Safe ranges and boxes, quantiles and moments are those of the surrogate; the
  worst case is the network's own, found by ascent through the perturbation.

  Args:
    key: of draws and starts.
    key_noise: of what the perturbations draw, as in the runs.
    options: config.report.
    classifier: the network.
    chain: the perturbations.
    frames: the frames.
    i: which of them.
    space: the factors.
    quantities: those of the surrogate.
    answer: with the surrogate.
  """
  keys = jax.random.split(key, 4)
  found = _distribution(keys[0], space, quantities, answer)
  if 'correctness' in quantities.names:
    found |= _safety(keys[1], options, chain, space, quantities, answer)
  if options.num_worst_starts and all(
    p.differentiable for p in chain.parameters
  ) and chain.convention != 'paper':
    found['worst_case'] = _worst(
      keys[2], key_noise, options, classifier, chain, frames, i, space
    )
  return found


def _distribution(key, space, quantities, answer) -> dict:
  """Moments and quantiles of the first quantity."""
  first = lambda germ: np.asarray(answer.surrogate(germ))[:, :1]
  sample = statistics.draw(
    key, first, space, num_points=_NUM_POINTS, num_replicates=2
  )
  four = moments.of_sample(sample)
  levels = statistics.quantiles(sample, _QUANTILES).value
  return {
    'quantity': quantities.output_names[0],
    'moments': {
      name: float(np.ravel(getattr(four, name))[0])
      for name in ('mean', 'variance', 'skewness', 'kurtosis')
    },
    'quantiles': {
      str(level): float(value) for level, value in zip(
        _QUANTILES, np.ravel(levels), strict=True
      )
    },
  }


def _safety(key, options, chain, space, quantities, answer) -> dict:
  """Failure probability, safe range of each factor and safe box."""
  k = quantities.index('correctness')

  def failing(germ):
    return np.clip(1 - np.asarray(answer.surrogate(germ))[:, k], 0, 1)

  nominal = _nominal(chain, space)
  ranges = {}
  for n, name in enumerate(space.names):
    ranges[name] = _box(operating_range.safe_range(
      jax.random.fold_in(key, n), space, failing, name, nominal,
      options.max_failure, others='nominal', num_cells=256, num_check=256,
    ))
  box = operating_range.safe_box(
    jax.random.fold_in(key, space.dim), space, failing, nominal,
    options.max_failure, num_cells=_NUM_CELLS if space.dim <= 3 else None,
    num_points=_NUM_POINTS, num_check=_NUM_POINTS // 2,
  )
  return {
    'failure_probability': float(1 - answer.indices.mean[k]),
    'max_failure': options.max_failure,
    'safe_range': ranges,
    'safe_box': _box(box) | {'mass': float(box.mass)},
  }


def _nominal(chain, space) -> list[float]:
  """The untouched image, or what of the factors' ranges comes closest."""
  return [
    float(np.clip(identity, factor.lower, factor.upper))
    for identity, factor in zip(chain.identity, space.factors, strict=True)
  ]


def _box(box: operating_range.SafeBox) -> dict:
  limits = {
    name: [float(low), float(high)]
    for name, low, high in zip(box.names, box.lower, box.upper, strict=True)
  }
  return {
    'status': str(box.status), 'limits': limits,
    'checked_failure': float(box.check.value),
    'refuted': bool(box.is_refuted),
  }


def _worst(
  key, key_noise, options, classifier, chain, frames, i, space
) -> dict:
  """The smallest margin of the network within the factors' ranges."""
  found = worst_case.search(
    key, worst_case.make_objective(
      classifier, chain, frames.images[i], int(frames.labels[i]),
      key=key_noise,
    ),
    space, nominal=_nominal(chain, space), num_starts=options.num_worst_starts,
    num_steps=_NUM_STEPS,
  )
  return {
    'values': dict(zip(space.names, map(float, found.values), strict=True)),
    'margin': -float(found.objective),
    'nominal_margin': -float(found.nominal_objective),
    'num_evaluations': found.num_screened,
    'num_gradients': found.num_gradients,
  }
