r"""Where is a classifier of points in the plane sure of itself?

  python -m experiments.two_moons --workdir=runs/two_moons

Two interleaved half circles of 1,500 points, noise 0.1; a network of three
layers of 20 features, trained with kernels (10 dimensions, length scale 0.3,
centroids with decay 0.99, gradient penalty 1) and again with a softmax, both
for 30 epochs in batches of 64 at the rate 0.01: the setting of the notebook of
van Amersfoort et al. (2020). Writes `two_moons.png`, the certainty of both over
the plane, and `two_moons.json`. Seconds on a CPU.
"""

import pathlib

from absl import app
from absl import flags
from flax import nnx
import jax
import numpy as np
from scipy import spatial
from sklearn import datasets

from experiments import runs
from jaxsens import classifiers
from jaxsens import files
from jaxsens.models import layers
from jaxsens.reports import certainty_figures
from jaxsens.reports import style
from jaxsens.training import loop
from jaxsens.uncertainty import duq
from jaxsens.uncertainty import duq_objective
from jaxsens.uncertainty import scores

_SEED = flags.DEFINE_integer('seed', 0, 'Of data and networks.')
_EPOCHS = flags.DEFINE_integer('num_epochs', 30, 'Passes over the points.')

_WIDTH = 20
# Points that are further than that from all data are strange.
_FAR = 1.5
_SIDE = 121


class Features(nnx.Module):
  """Three layers of 20 features on points that stand as images (B, 1, 1, 2)."""

  def __init__(self, rngs: nnx.Rngs):
    self.fc1 = layers.linear(2, _WIDTH, rngs=rngs)
    self.fc2 = layers.linear(_WIDTH, _WIDTH, rngs=rngs)
    self.fc3 = layers.linear(_WIDTH, _WIDTH, rngs=rngs)

  def embed(self, images, *, train=False, key=None):
    """Returns (B, 20)."""
    del train, key
    x = layers.relu(self.fc1(images.reshape(len(images), 2)))
    return self.fc3(layers.relu(self.fc2(x)))


class Softmax(nnx.Module):
  """The same features with a linear head."""

  def __init__(self, rngs: nnx.Rngs):
    self.features = Features(rngs)
    self.fc = layers.linear(_WIDTH, 2, rngs=rngs)

  def __call__(self, images, *, train=False, key=None):
    """Returns the logits (B, 2)."""
    del train, key
    return self.fc(layers.relu(self.features.embed(images)))


def run(workdir: pathlib.Path, seed: int = 0, num_epochs: int = 30) -> dict:
  """Trains both, writes the figure and returns the numbers."""
  key = jax.random.key(seed)
  keys = jax.random.split(key, 6)
  data, test = (_moons(n, seed=2 * seed + i) for i, n in enumerate((1500, 500)))
  settings = loop.Settings(
    num_epochs=num_epochs, batch_size=64, learning_rate=0.01, optimizer='sgd',
    weight_decay=1e-4, schedule='constant', warmup_epochs=0,
  )
  kernels = duq.make_network(
    keys[0], Features(nnx.Rngs(keys[1])), 2, image_shape=(1, 1, 2),
    num_dimensions=10, length_scale=0.3, initial_count=20.0,
  )
  # Kernels and centroids as the notebook draws them, N(0, 1); from those of
  # `Head`, which are narrower, rays of certainty reach far away.
  head = kernels.head
  head.kernels[...] = jax.random.normal(keys[4], head.kernels[...].shape)
  head.sums[...] = 20 * jax.random.normal(keys[5], head.sums[...].shape)
  objective = duq_objective.Objective(penalty=1.0, decay=0.99)
  points = data.images.reshape(-1, 2)
  x, y = (np.linspace(a - 2.5, b + 2.5, _SIDE, dtype=np.float32)
          for a, b in zip(points.min(0), points.max(0), strict=True))
  plane = np.stack(np.meshgrid(x, y), -1).reshape(-1, 1, 1, 2)
  far = spatial.cKDTree(points).query(plane.reshape(-1, 2))[0] > _FAR
  found, planes = {}, {}
  for name, network, goal, certainty_of in (
    ('Kernels (DUQ)', kernels, objective, duq.certainty),
    ('Softmax', Softmax(nnx.Rngs(keys[2])), None, scores.maximum_probability),
  ):
    tuned = loop.fine_tune(
      keys[3], network, data, test, preprocess=classifiers.identity,
      class_weights=np.ones(2), settings=settings, objective=goal,
    )
    answer = lambda images, model=tuned.model: loop.predict(
      model, images, preprocess=classifiers.identity, batch_size=500
    )
    logits = answer(test.images)
    over_plane = np.asarray(certainty_of(answer(plane)))
    planes[name] = over_plane.reshape(_SIDE, _SIDE)
    found[name] = {
      'accuracy': float((logits.argmax(1) == test.labels).mean()),
      'certainty on the data': float(np.mean(certainty_of(logits))),
      'certainty far away': float(over_plane[far].mean()),
      'share of the far plane above 0.9': float((over_plane[far] > 0.9).mean()),
    }
    runs.LOG.info('%s: %s', name, found[name])
  files.make_directory(workdir)
  runs.write_json(workdir / 'two_moons.json', found)
  figure = certainty_figures.plot_planes(
    planes, x, y, points[::5], data.labels[::5],
    'Sure only on the data, or everywhere off the boundary',
  )
  files.write_bytes(workdir / 'two_moons.png', style.render_png(figure))
  return found


def _moons(number: int, seed: int) -> loop.LabelledImages:
  points, labels = datasets.make_moons(number, noise=0.1, random_state=seed)
  return loop.LabelledImages(
    points.astype(np.float32).reshape(-1, 1, 1, 2), labels.astype(np.int32)
  )


def main(argv: list[str]) -> None:
  """Runs with the flags."""
  del argv
  runs.log_to_stderr()
  workdir = flags.FLAGS.workdir or 'runs/two_moons'
  run(pathlib.Path(workdir), _SEED.value, _EPOCHS.value)


if __name__ == '__main__':
  app.run(main)
