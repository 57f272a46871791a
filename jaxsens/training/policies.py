"""Random augmentations of one image: published policies and those of phases.

A policy is (key, image) -> image for one image (H, W, C), float in [0, 1], gray
or RGB, and keeps its size. It chooses operations by `jax.lax.switch`, so that
it should run image by image (`augment.Augmentation` does) and not under `vmap`,
where a switch carries out every operation.
"""

from collections.abc import Callable
from collections.abc import Sequence
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsens.perturbations import colour
from jaxsens.perturbations import geometry
from jaxsens.perturbations import homographies
from jaxsens.perturbations import photometry
from jaxsens.perturbations import severity
from jaxsens.training import operations

Policy = Callable[[jax.Array, jax.Array], jax.Array]

NAMES = (
  'none', 'rand_augment', 'auto_augment_imagenet', 'auto_augment_cifar10',
  'categorical', 'random_choice',
)
_NUM_BINS = 31
_POLICY_BINS = 10
_NAMES = tuple(operations.OPERATIONS)
_RAND_AUGMENT = tuple(name for name in _NAMES if name != 'Invert')


def rand_augment(
  key: jax.Array,
  image: jax.Array,
  *,
  num_operations: int = 2,
  magnitude: int = 9,
) -> jax.Array:
  """Returns an image after operations drawn one by one (RandAugment).

  Args:
    key: typed key.
    image: (H, W, C).
    num_operations: how many.
    magnitude: of all, 0 to 30.

  References:
    Cubuk et al., RandAugment: practical automated data augmentation with a
    reduced search space, 2020; torchvision.transforms.RandAugment.
  """
  values = jnp.asarray([
    operations.magnitude(name, magnitude, _NUM_BINS) for name in _RAND_AUGMENT
  ], image.dtype)
  signed = jnp.asarray([operations.is_signed(name) for name in _RAND_AUGMENT])

  def act(image, key):
    key_operation, key_sign = jax.random.split(key)
    chosen = jax.random.randint(key_operation, (), 0, len(_RAND_AUGMENT))
    negative = jax.random.bernoulli(key_sign) & signed[chosen]
    value = jnp.where(negative, -values[chosen], values[chosen])
    return _apply(_RAND_AUGMENT, chosen, image, value), None

  return jax.lax.scan(act, image, jax.random.split(key, num_operations))[0]


# Name, probability and magnitude of the two operations of every sub-policy.
_IMAGENET = """
  Posterize .4 8 Rotate .6 9; Solarize .6 5 AutoContrast .6 0;
  Equalize .8 0 Equalize .6 0; Posterize .6 7 Posterize .6 6;
  Equalize .4 0 Solarize .2 4; Equalize .4 0 Rotate .8 8;
  Solarize .6 3 Equalize .6 0; Posterize .8 5 Equalize 1 0;
  Rotate .2 3 Solarize .6 8; Equalize .6 0 Posterize .4 6;
  Rotate .8 8 Color .4 0; Rotate .4 9 Equalize .6 0;
  Equalize 0 0 Equalize .8 0; Invert .6 0 Equalize 1 0;
  Color .6 4 Contrast 1 8; Rotate .8 8 Color 1 2;
  Color .8 8 Solarize .8 7; Sharpness .4 7 Invert .6 0;
  ShearX .6 5 Equalize 1 0; Color .4 0 Equalize .6 0;
  Equalize .4 0 Solarize .2 4; Solarize .6 5 AutoContrast .6 0;
  Invert .6 0 Equalize 1 0; Color .6 4 Contrast 1 8;
  Equalize .8 0 Equalize .6 0
"""
_CIFAR10 = """
  Invert .1 0 Contrast .2 6; Rotate .7 2 TranslateX .3 9;
  Sharpness .8 1 Sharpness .9 3; ShearY .5 8 TranslateY .7 9;
  AutoContrast .5 0 Equalize .9 0; ShearY .2 7 Posterize .3 7;
  Color .4 3 Brightness .6 7; Sharpness .3 9 Brightness .7 9;
  Equalize .6 0 Equalize .5 0; Contrast .6 7 Sharpness .6 5;
  Color .7 7 TranslateX .5 8; Equalize .3 0 AutoContrast .4 0;
  TranslateY .4 3 Sharpness .2 6; Brightness .9 6 Color .2 8;
  Solarize .5 2 Invert 0 0; Equalize .2 0 AutoContrast .6 0;
  Equalize .2 0 Equalize .6 0; Color .9 9 Equalize .6 0;
  AutoContrast .8 0 Solarize .2 8; Brightness .1 3 Color .7 0;
  Solarize .4 5 AutoContrast .9 0; TranslateY .9 9 TranslateY .7 9;
  AutoContrast .9 0 Solarize .8 3; Equalize .8 0 Invert .1 0;
  TranslateY .7 9 AutoContrast .9 0
"""


def sub_policies(
  text: str,
) -> tuple[tuple[tuple[str, float, int], ...], ...]:
  """Returns (name, probability, magnitude) of every sub-policy of a table."""
  rows = (row.split() for row in text.split(';'))
  return tuple(
    tuple(
      (row[i], float(row[i + 1]), int(row[i + 2]))
      for i in range(0, len(row), 3)
    )
    for row in rows
  )


AUTO_AUGMENT = {
  'imagenet': sub_policies(_IMAGENET), 'cifar10': sub_policies(_CIFAR10),
}
"""The policies of AutoAugment; magnitudes are 0 to 9, 0 where there is none."""


def auto_augment(
  key: jax.Array, image: jax.Array, *, policy: str = 'imagenet'
) -> jax.Array:
  """Returns an image after one of the learned pairs of operations.

  Args:
    key: typed key.
    image: (H, W, C).
    policy: one of `AUTO_AUGMENT`.

  References:
    Cubuk et al., AutoAugment: learning augmentation strategies from data, 2019,
    appendix; torchvision.transforms.AutoAugment.
  """
  table = AUTO_AUGMENT[policy]
  chosen, probabilities, values, signed = (
    np.array([[entry(*one) for one in pair] for pair in table])
    for entry in (
      lambda name, p, m: _NAMES.index(name),
      lambda name, p, m: p,
      lambda name, p, m: operations.magnitude(name, m, _POLICY_BINS),
      lambda name, p, m: operations.is_signed(name),
    )
  )
  key_pair, key_probability, key_sign = jax.random.split(key, 3)
  pair = jax.random.randint(key_pair, (), 0, len(table))
  drawn = jax.random.uniform(key_probability, (2,), image.dtype)
  # Drawn values are below one, so that a probability of one always acts.
  acts = drawn < jnp.asarray(probabilities, image.dtype)[pair]
  negative = jax.random.bernoulli(key_sign, shape=(2,))
  negative &= jnp.asarray(signed)[pair]
  values = jnp.asarray(values, image.dtype)[pair]
  chosen = jnp.where(acts, jnp.asarray(chosen)[pair], _NAMES.index('Identity'))

  steps = (chosen, jnp.where(negative, -values, values))
  return jax.lax.scan(
    lambda image, one: (_apply(_NAMES, one[0], image, one[1]), None),
    image, steps,
  )[0]


def _apply(names, index, image, value):
  branches = [operations.OPERATIONS[name] for name in names]
  return jax.lax.switch(index, branches, image, value)


def _rotation(key, image):
  degrees = jax.random.uniform(key, (), image.dtype, 0, 30)
  return operations.rotate(image, degrees)


def _flip(key, image):
  return image[:, ::-1]


def _affine(key, image):
  """Zoom by 0.75 to 1, shear by 0 to 0.2 degrees, shift by whole pixels."""
  key_x, key_y, key_scale, key_shear = jax.random.split(key, 4)
  height, width = size = image.shape[:2]
  draw = lambda key, lower, upper: jax.random.uniform(
    key, (), image.dtype, lower, upper
  )
  shift_x = jnp.round(draw(key_x, -0.1, 0.1) * width) / width
  shift_y = jnp.round(draw(key_y, -0.3, 0.3) * height) / height
  matrix = geometry.compose([
    homographies.shear_x(draw(key_shear, 0, 0.2), size),
    homographies.scaling(draw(key_scale, 0.75, 1), size),
    homographies.translation_x(shift_x, size),
    homographies.translation_y(shift_y, size),
  ])
  return geometry.transform(image, matrix, method='nearest', border='hard')


def _solarise(key, image):
  """With probability 1/2, from a level of 100 to 199 on."""
  key_acts, key_level = jax.random.split(key)
  level = jax.random.randint(key_level, (), 100, 200)
  changed = photometry.solarise(image, level / 255)
  return jnp.where(jax.random.bernoulli(key_acts), changed, image)


def _jitter(key, image):
  """Brightness, contrast and saturation by 0.3 to 1, hue by any turn."""
  key_factors, key_hue = jax.random.split(key)
  brightness, contrast, saturation = jax.random.uniform(
    key_factors, (3,), image.dtype, 0.3, 1
  )
  image = photometry.contrast(
    photometry.brightness(image, brightness), contrast
  )
  turn = jax.random.uniform(key_hue, (), image.dtype, -0.5, 0.5)
  return colour.hue(colour.saturation(image, saturation), turn)


def _corruption(name):
  corrupt = severity.imagenet_c(name, 1)
  return lambda key, image: corrupt(image, key)


def _without_key(function, *values):
  return lambda key, image: function(image, *values)


PHASES: tuple[dict[str, Policy], ...] = (
  {'rotation': _rotation, 'flip': _flip, 'affine': _affine},
  {
    'grayscale': _without_key(operations.grayscale),
    'sharpness': _without_key(operations.sharpness, 2.0),
    'autocontrast': _without_key(operations.autocontrast),
    'equalise': _without_key(operations.equalise),
  },
  {
    'invert': _without_key(photometry.invert, 1.0),
    'posterise': _without_key(photometry.posterise, 3.0),
    'solarise': _solarise,
    'jitter': _jitter,
  },
  {
    name: _corruption(name) for name in (
      'gaussian_blur', 'shot_noise', 'impulse_noise', 'motion_blur',
      'zoom_blur', 'pixelate', 'jpeg_compression',
    )
  },
)
"""Geometry, tone, values and corruption, each with its operations by name."""


def categorical(key: jax.Array, image: jax.Array) -> jax.Array:
  """Returns an image after one operation, or none, of each of `PHASES`."""
  for phase, key_phase in zip(
    PHASES, jax.random.split(key, len(PHASES)), strict=True
  ):
    image = _one_of((_without_key(lambda image: image), *phase.values()),
                    key_phase, image)
  return image


def random_choice(key: jax.Array, image: jax.Array) -> jax.Array:
  """Returns an image after one of the 18 operations of `PHASES`."""
  every = [function for phase in PHASES for function in phase.values()]
  return _one_of(every, key, image)


def _one_of(choices: Sequence[Policy], key, image):
  key_choice, key_operation = jax.random.split(key)
  chosen = jax.random.randint(key_choice, (), 0, len(choices))
  return jax.lax.switch(chosen, choices, key_operation, image)


def find(
  name: str, *, num_operations: int = 2, magnitude: int = 9
) -> Policy | None:
  """Returns the policy of a name of `NAMES`; None for 'none'.

  Args:
    name: one of `NAMES`.
    num_operations: of 'rand_augment'.
    magnitude: of 'rand_augment'.

  Raises:
    ValueError: an unknown name, or a magnitude that there is not.
  """
  if name == 'rand_augment':
    operations.magnitude('Rotate', magnitude, _NUM_BINS)
    return functools.partial(
      rand_augment, num_operations=num_operations, magnitude=magnitude
    )
  if name in ('auto_augment_imagenet', 'auto_augment_cifar10'):
    policy = name.removeprefix('auto_augment_')
    return functools.partial(auto_augment, policy=policy)
  simple = {
    'none': None, 'categorical': categorical, 'random_choice': random_choice
  }
  if name not in simple:
    raise ValueError(f'augmentation must be one of {NAMES}, got {name!r}.')
  return simple[name]
