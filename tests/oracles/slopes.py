"""A study of pictures of slopes by a network of two means."""

import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import studies
from jaxsens import classifiers
from jaxsens.data import image_sets


def study(space, *, gain, batch_size, num_images=2):
  """Returns a study of slopes (16, 16, 1) under the factors of a space.

  The logits are `gain` times the mean of the image, and of its upper left
  corner of 8 by 8 pixels.
  """
  x, y = np.meshgrid(np.arange(16) / 16, np.arange(16) / 16)
  pictures = [(x * (y + i) / (1 + i))[..., None] for i in range(num_images)]
  images = image_sets.ImageSet(
    images=np.array(pictures, np.float32),
    labels=np.arange(num_images) % 2,
    names=tuple(f'image-{i}' for i in range(num_images)),
    class_names=('mean', 'corner'),
    groups=tuple(map(str, range(num_images))),
    description='slopes',
  )
  classifier = classifiers.Classifier(
    _two_means, {'gain': jnp.float32(gain)}, classifiers.identity,
    images.class_names, (16, 16), 1,
  )
  return studies.make_study(
    'slopes', classifier, images, space, batch_size=batch_size,
    digest='network',
  )


def _two_means(params, images):
  means = [images.mean((1, 2, 3)), images[:, :8, :8].mean((1, 2, 3))]
  return params['gain'] * jnp.stack(means, axis=1)
