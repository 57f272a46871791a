"""A classifier whose logits are linear in the image, and images for it."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxsens import classifiers


def _apply(params, images):
  flat = images.reshape(images.shape[0], -1)
  return flat @ params['head']['kernel'] + params['head']['bias']


def classifier(
  key: jax.Array, *, size: int = 9, channels: int = 3, num_classes: int = 3
) -> classifiers.Classifier:
  """Returns a classifier with random values."""
  shape = (size * size * channels, num_classes)
  return classifiers.Classifier(
    apply_fn=_apply,
    params={'head': {
      'kernel': jax.random.normal(key, shape), 'bias': jnp.ones(num_classes)
    }},
    preprocess=classifiers.identity,
    class_names=tuple(f'class {i}' for i in range(num_classes)),
    image_size=(size, size), channels=channels,
  )


def gradients(
  linear: classifiers.Classifier, targets: np.ndarray
) -> np.ndarray:
  """Returns d logit / d image, (B, H, W, C)."""
  kernel = np.asarray(linear.params['head']['kernel'])
  return kernel.T[targets].reshape(
    -1, *linear.image_size, linear.channels
  )


def images(
  number: int, size: int = 9, channels: int = 3, seed: int = 0
) -> np.ndarray:
  """Returns random images (B, H, W, C) in [0, 1], float32."""
  rng = np.random.default_rng(seed)
  return rng.random((number, size, size, channels), np.float32)
