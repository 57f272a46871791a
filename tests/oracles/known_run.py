"""A run of a function whose Sobol indices are known, for the reports.

With u_d = value_d / 90 uniform on [-1, 1] the main output is

    y = 0.5 + sum_d a_d u_d + b u_0 u_1,   a_d = 0.3 / 2^d,   b = 0.12,

so that Var y = sum_d a_d^2 / 3 + b^2 / 9 with b = 0 for one factor; the model
answers the true class where y >= 0.41.
"""

import itertools

import numpy as np

from jaxsens.reports import results

CLASSES = ('good weld', 'burn <through> & more')
OUTPUTS = ('p(good weld)', 'p(burn through)', 'entropy')
NAMES = ('rotation', 'tilt', 'brightness', 'blur', 'noise')
UNITS = ('deg', 'deg', '', 'px', '')
THRESHOLD = 0.41


def _coefficients(dim):
  return 0.3 / 2.0 ** np.arange(dim), 0.12 if dim > 1 else 0.0


def _outputs(u):
  a, b = _coefficients(u.shape[1])
  main = 0.5 + u @ a + (b * u[:, 0] * u[:, 1] if len(a) > 1 else 0.0)
  return np.stack([main, 1 - main, np.zeros_like(main)], axis=1)


def expected(dim):
  """Returns variance, first-order and total indices in closed form."""
  a, b = _coefficients(dim)
  variance = (a ** 2).sum() / 3 + b ** 2 / 9
  joint = np.where(np.arange(dim) < 2, b ** 2 / 9, 0.0)
  return variance, a ** 2 / 3 / variance, (a ** 2 / 3 + joint) / variance


def curve(dim, d, channels):
  values = np.linspace(-90, 90, 37)
  u = np.zeros((37, dim))
  u[:, d] = values / 90
  truth = _outputs(u)
  wrong = truth[:, 0] < THRESHOLD
  below = values[wrong & (values < 0)]
  rng = np.random.default_rng(d)
  return results.FactorCurve(
    name=NAMES[d], unit=UNITS[d], values=values, truth=truth,
    surrogate_values=values[::2], surrogate=truth[::2] + 0.01,
    predicted=wrong.astype(int), identity=0.0,
    contact_images=rng.uniform(-0.1, 1.1, (4, 12, 9, channels)),
    contact_values=values[::12], contact_predicted=wrong[::12].astype(int),
    contact_confidence=np.full(4, 0.75),
    first_flip_below=below.max() if below.size else None,
    first_error_below=below.max() if below.size else None,
  )


def surface(dim):
  x, y = np.linspace(-90, 90, 8), np.linspace(-90, 90, 7)
  return results.Surface(
    name_x=NAMES[0], unit_x=UNITS[0], name_y=NAMES[1], unit_y=UNITS[1],
    fixed={name: 0.0 for name in NAMES[2:dim]}, x=x, y=y,
    surrogate=0.5 + 0.3 * x[:, None] / 90 + 0.15 * y / 90,
    nodes_x=np.array([-80.0, 10]), nodes_y=np.array([5.0, 60]),
    nodes_truth=np.array([0.2, 0.6]), output_name=OUTPUTS[0],
  )


def image(dim=3, channels=1, **changes):
  variance, first_order, total = expected(dim)
  nan = np.full(dim, np.nan)
  subsets = [
    s for r in range(1, dim + 1) for s in itertools.combinations(range(dim), r)
  ]
  first_order, total = (
    np.stack([index, index, nan], 1) for index in (first_order, total)
  )
  interactions = np.zeros((dim, dim, 3))
  interactions[range(dim), range(dim)] = first_order
  if dim > 1:
    interactions[0, 1] = interactions[1, 0] = 0.0016 / variance
  values = np.zeros((len(subsets), 3))
  for s, subset in enumerate(subsets):
    if len(subset) < 3:
      values[s] = interactions[subset[0], subset[-1]]
  fields = {
    'name': 'clip 1/frame_<7>.png', 'label': 0, 'label_name': CLASSES[0],
    'prediction': 0, 'prediction_name': CLASSES[0], 'confidence': 0.8,
    'image': np.full((12, 9, channels), 0.5), 'output_names': OUTPUTS,
    'main_output': 0, 'factor_names': NAMES[:dim],
    'factor_units': UNITS[:dim], 'first_order': first_order,
    'first_order_lower': first_order - 0.02,
    'first_order_upper': first_order + 0.02, 'total': total,
    'total_lower': total - 0.02, 'total_upper': total + 0.02,
    'interactions': interactions, 'subsets': tuple(subsets),
    'subset_values': values, 'mean': np.array([0.5, 0.5, 0.0]),
    'variance': np.array([variance, variance, 0.0]),
    'mean_derivatives': np.outer(_coefficients(dim)[0] / 90, [1, -1, 0]),
    'q2': np.array([0.97, 0.97, np.nan]),
    'explained_variance': np.array([0.98, 0.98, np.nan]), 'trusted': True,
    'advice': (), 'reasons': (None, None, 'the entropy never changes'),
    'curves': tuple(curve(dim, d, channels) for d in range(dim)),
    'surfaces': (surface(dim),) if dim > 1 else (),
  }
  return results.ImageResult(**fields | changes)


def run(*images, title='Which factor moves the <model>?'):
  dim = len(images[0].factor_names)
  return results.RunResult(
    title=title, data_description='procedural frames', images=images,
    class_names=CLASSES,
    provenance={
      'model': 'ResNet18', 'training': {'validation_accuracy': 0.953},
      'num_evaluations': 12000, 'stage_seconds': {'fit': 0.25},
      'config': {'seed': 0, 'note': '<b>'}, 'learning_rate': np.float32(0.5),
    },
    factors=[
      {'name': NAMES[d], 'unit': UNITS[d], 'distribution': 'Uniform(-90, 90)',
       'lower': -90.0, 'upper': 90.0} for d in range(dim)
    ],
  )


def doubtful(**changes):
  return image(
    q2=np.array([0.62, 0.95, np.nan]), trusted=False,
    advice=('raise the degree of rotation from 6 to 8',), **changes
  )


def undefined():
  nan = np.full((3, 3), np.nan)
  return image(
    first_order=nan, total=nan, first_order_lower=nan, first_order_upper=nan,
    total_lower=nan, total_upper=nan, interactions=np.full((3, 3, 3), np.nan),
    subset_values=np.full((7, 3), np.nan), variance=np.zeros(3),
    q2=np.full(3, np.nan), trusted=False, advice=('widen the ranges',),
    reasons=('the answer never changes',) * 3,
  )


def wrong():
  return image(prediction=1, prediction_name=CLASSES[1], confidence=0.6)
