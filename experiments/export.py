"""Writes the classifier of a config for other programs to run.

  python -m experiments.export --config=configs/steel.py
  python -m experiments.export --config=configs/steel.py --formats=stablehlo

`classifier.stablehlo` is read by `jax.export.deserialize`, `classifier.onnx` by
any ONNX runtime. Both take images (B, H, W, C), float32 in [0, 1], any B, and
return logits, or log-kernels of a network with kernels, whose exponentials are
the certainty (`answers` in `export.json`); normalisation is inside. Each is
read back and compared with the classifier on test images; answers, differences
and milliseconds a batch are written to `export.json` in the folder `export` of
the run directory.

ONNX needs `pip install jax2onnx onnxruntime`.
"""

from collections.abc import Callable
import functools
import importlib
import pathlib

from absl import app
from absl import flags
import jax
from jax import export as jax_export
import jax.numpy as jnp
from ml_collections import ConfigDict
import numpy as np

from experiments import evaluate
from experiments import runs
from experiments import train
from jaxsens import classifiers
from jaxsens import files
from jaxsens.data import image_sets
from jaxsens.models import inference

FORMATS = ('stablehlo', 'onnx')
_FORMATS = flags.DEFINE_list('formats', list(FORMATS), 'Of stablehlo, onnx.')
_NUM_IMAGES = 32
# Of the largest logit: other kernels, other order of sums.
_TOLERANCE = 1e-3

Answer = Callable[[np.ndarray], np.ndarray]


def run(
  config: ConfigDict, workdir: pathlib.Path, formats: tuple[str, ...] = FORMATS
) -> dict:
  """Exports and checks; returns what was found by format."""
  unknown = sorted(set(formats) - set(FORMATS))
  if unknown or not formats:
    raise ValueError(f'formats must be some of {FORMATS}, got {formats}')
  runs.start(config, workdir)
  key_data, key_train = runs.split_keys(config)[:2]
  splits = train.load_data(key_data, config)
  trained = train.train_or_restore(key_train, config, workdir, lambda: splits)
  classifier = portable(trained)
  part = splits.test if len(splits.test) else splits.validation
  chosen = part.take(np.arange(min(_NUM_IMAGES, len(part))))
  images = image_sets.resize_all(chosen.images, classifier.image_size)
  folder = workdir / 'export'
  folder.mkdir(exist_ok=True)
  found = {}
  for name in formats:
    path = folder / f'classifier.{name}'
    files.write_bytes(path, _WRITERS[name](classifier))
    found[name] = check(classifier, images, _READERS[name](path)) | {
      'bytes': path.stat().st_size
    }
    runs.LOG.info('%s: %s', path, found[name])
  report = {
    'class_names': list(classifier.class_names),
    'answers': classifier.answers, 'formats': found,
  }
  runs.write_json(folder / 'export.json', report)
  return found


def portable(trained: train.Trained) -> classifiers.Classifier:
  """Returns the classifier with kernels as they are: a quarter of the bytes."""
  given = trained.classifier
  shape = (*given.image_size, given.channels)
  return classifiers.from_flax(
    inference.prepare(trained.network, shape, tiles=False),
    preprocess=given.preprocess, class_names=given.class_names,
    image_size=given.image_size, channels=given.channels,
    answers=given.answers,
  )


def to_stablehlo(classifier: classifiers.Classifier) -> bytes:
  """Returns the classifier, params inside, as serialised StableHLO.

  Its convolutions have the form of the platform that it is exported on.
  """
  (batch,) = jax_export.symbolic_shape('batch')
  shape = (batch, *classifier.image_size, classifier.channels)
  exported = jax_export.export(jax.jit(lambda images: classifier(images)))(
    jax.ShapeDtypeStruct(shape, jnp.float32)
  )
  return exported.serialize()


def read_stablehlo(path: pathlib.Path) -> Answer:
  """Returns the function in a file of `to_stablehlo`."""
  exported = jax_export.deserialize(path.read_bytes())
  call = jax.jit(exported.call)
  return lambda images: np.asarray(call(images))


def to_onnx(classifier: classifiers.Classifier) -> bytes:
  """Returns the classifier, params inside, as ONNX.

  Raises:
    ImportError: jax2onnx is not installed.
  """
  jax2onnx = _import('jax2onnx')
  shape = ('B', *classifier.image_size, classifier.channels)
  model = jax2onnx.to_onnx(
    lambda images: classifier(images), inputs=[shape],
    model_name='classifier', input_names=['images'], output_names=['logits'],
  )
  return model.SerializeToString()


def read_onnx(path: pathlib.Path) -> Answer:
  """Returns the function in an ONNX file, run by onnxruntime on CPU.

  Raises:
    ImportError: onnxruntime is not installed.
  """
  session = _import('onnxruntime').InferenceSession(
    str(path), providers=['CPUExecutionProvider']
  )
  (given,) = session.get_inputs()
  return lambda images: session.run(None, {given.name: images})[0]


def check(
  classifier: classifiers.Classifier, images: np.ndarray, other: Answer
) -> dict[str, float]:
  """Returns how another form of a classifier compares with it.

  Args:
    classifier: what was exported.
    images: (N, H, W, C).
    other: images -> logits.

  Returns:
    Largest difference of logits, equal answers, and milliseconds for all images
    at once, of both, warm.

  Raises:
    ValueError: logits differ by more than rounding.
  """
  evaluator = jax.jit(lambda classifier, x: classifier(x))
  own = functools.partial(evaluator, classifier)
  expected = np.asarray(own(images))
  # Another batch than the one that was traced.
  actual = np.concatenate([other(images[:1]), other(images[1:])])
  difference = np.abs(actual - expected).max()
  if not difference <= _TOLERANCE * np.abs(expected).max():
    raise ValueError(
      f'the exported classifier differs: logits by {difference:.3g} of '
      f'{np.abs(expected).max():.3g}'
    )
  return {
    'num_images': len(images),
    'largest_difference': float(difference),
    'equal_answers': int((actual.argmax(1) == expected.argmax(1)).sum()),
    **evaluate.race(
      {'own_milliseconds': lambda: jax.block_until_ready(own(images)),
       'milliseconds': lambda: other(images)}
    ),
  }


def _import(name: str):
  try:
    return importlib.import_module(name)
  except ImportError as error:
    raise ImportError(
      f'ONNX needs {name} ({error}): pip install jax2onnx onnxruntime; or '
      '--formats=stablehlo'
    ) from error


_WRITERS = {'stablehlo': to_stablehlo, 'onnx': to_onnx}
_READERS = {'stablehlo': read_stablehlo, 'onnx': read_onnx}


if __name__ == '__main__':
  app.run(runs.make_main(
    lambda config, workdir: run(config, workdir, tuple(_FORMATS.value))
  ))
