r"""Looks into the layers of the classifier of a config.

  python -m experiments.inspect_layers --config=configs/steel.py
  python -m experiments.inspect_layers --config=configs/steel.py \
    --layers=conv1,layer2.1,layer4.1 --groups=patches,scratches \
    --other_config=configs/steel_duq.py

Trains on first use, as `experiments.train` does. Writes `inspection.json`,
`inspection.html` and the folder `inspection` of figures and of the images that
excite neurons (`neurons.npz`) into the run directory: linear probes of each
layer, fitted on training images and scored on test images; principal components
and t-SNE; linear CKA between the layers, and with those of another network;
channels that differ between two groups of images; the weights; and what white
stains and black padding do to the answers.

`--groups` are one or two classes: a class against the rest, or two against each
other; the first class if nothing is said. With `--other_config` the layers are
compared with those of that network, from `--other_workdir`, on the same images.
"""

from collections.abc import Sequence
import dataclasses
import difflib
import io
import pathlib

from absl import app
from absl import flags
import jax
from ml_collections import ConfigDict
from ml_collections import config_flags
import numpy as np

from experiments import evaluate
from experiments import layer_parts
from experiments import runs
from experiments import train
from jaxsens import files
from jaxsens.attribution import taps
from jaxsens.data import image_sets
from jaxsens.inspection import ascent
from jaxsens.inspection import embeddings
from jaxsens.inspection import features
from jaxsens.inspection import neurons
from jaxsens.inspection import regions
from jaxsens.models import states
from jaxsens.reports import inspection_figures
from jaxsens.reports import inspection_page
from jaxsens.reports import tables

_LAYERS = flags.DEFINE_list(
  'layers', [], 'Names of layers; none chooses some over the depth.'
)
_NUM_IMAGES = flags.DEFINE_integer(
  'num_images', 500, 'Images at most, of the training and of the test part.'
)
_GROUPS = flags.DEFINE_list('groups', [], 'One or two classes, see above.')
_NUM_NEURONS = flags.DEFINE_integer('num_neurons', 6, 'Neurons of each layer.')
_NUM_STEPS = flags.DEFINE_integer('ascent_steps', 64, 'Steps of the ascent.')
_PERPLEXITY = flags.DEFINE_float(
  'perplexity', None, 'Of t-SNE; default min(30, (images - 1) / 3).'
)
_STAIN_LEVEL = flags.DEFINE_float(
  'stain_level', 0.98, 'Level from which on pixels are white stains.'
)
_FILL = flags.DEFINE_string(
  'fill', 'neighbours', 'What takes the place of a region: black, white, mean, '
  'blur or neighbours.'
)
_OTHER_CONFIG = config_flags.DEFINE_config_file(
  'other_config', None, 'Config of another network to compare layers with.'
)
_OTHER_WORKDIR = flags.DEFINE_string(
  'other_workdir', None, 'Its run directory, if not the usual one.'
)


@dataclasses.dataclass(frozen=True)
class Options:
  """What is looked at; the flags of the same names.

  Attributes:
    layers, num_images, groups, num_neurons, ascent_steps, perplexity,
    stain_level, fill: see the flags.
    num_samples: resamples of the intervals.
    num_layers: chosen where no layers are named.
  """

  layers: Sequence[str] = ()
  num_images: int = 500
  groups: Sequence[str] = ()
  num_neurons: int = 6
  ascent_steps: int = 64
  perplexity: float | None = None
  stain_level: float = 0.98
  fill: str = 'neighbours'
  num_samples: int = 1000
  num_layers: int = 8

  def __post_init__(self):
    regions.check_fill(self.fill)
    for field, least in (('num_neurons', 0), ('ascent_steps', 1)):
      if getattr(self, field) < least:
        raise ValueError(
          f'--{field} must be at least {least}, got {getattr(self, field)}.'
        )


def run(
  config: ConfigDict,
  workdir: pathlib.Path,
  options: Options | None = None,
  other: tuple[ConfigDict, pathlib.Path] | None = None,
) -> dict:
  """Inspects the network; returns the held-out accuracy of each probe."""
  options = options or Options()
  runs.start(config, workdir)
  key_data, key_train, _, _, key = runs.split_keys(config)
  splits = train.load_data(key_data, config)
  trained = train.train_or_restore(key_train, config, workdir, lambda: splits)
  classifier = trained.classifier
  names = tuple(options.layers) or features.outline(
    classifier, options.num_layers
  )
  inner = [n for n in names if n not in (features.INPUT, features.LOGITS)]
  taps.check_layers(classifier, inner)
  first, second = choose_groups(classifier.class_names, options.groups)
  keys = dict(zip(
    ('choice', 'sketch', 'probes', 'points', 'neurons', 'regions'),
    jax.random.split(key, 6), strict=True,
  ))
  name = 'test' if len(splits.test) else 'validation'
  fitted = layer_parts.choose(
    keys['choice'], splits.train, options.num_images, classifier.image_size
  )
  shown = layer_parts.choose(
    keys['choice'], getattr(splits, name), options.num_images,
    classifier.image_size,
  )
  embeddings.checked_perplexity(options.perplexity, len(shown.labels))
  names = (features.INPUT, *inner, features.LOGITS)
  stages = runs.Stages()
  with stages('activations'):
    found = [
      features.extract(keys['sketch'], classifier, one.images, names)
      for one in (fitted, shown)
    ]
    means = features.extract(
      keys['sketch'], classifier, shown.images, inner, reduce='mean'
    ) if inner else {}
  logits = found[1][features.LOGITS]
  with stages('probes'):
    probed = layer_parts.probe_layers(
      keys['probes'], found, fitted.labels, shown, options.num_samples
    )
  with stages('embeddings'):
    embedded = layer_parts.embed_layers(
      keys['points'], found[1], shown.labels, options.perplexity
    )
  with stages('similarity'):
    similar = layer_parts.compare_layers(
      found[1], _other_features(keys['sketch'], other, shown, classifier,
                                options)
    )
  with stages('neurons'):
    excited = _excite(
      keys['neurons'], classifier, means, shown.labels, options
    )
  with stages('channels, weights and regions'):
    differing = layer_parts.compare_groups(means, shown.labels, first, second,
                                           classifier.class_names)
    weights = layer_parts.describe_weights(
      states.flatten(trained.network), taps.layer_names(classifier)
    )
    replaced = layer_parts.replace_regions(
      keys['regions'], classifier, shown,
      evaluate.certainty_of(classifier, logits), options,
    )
  result = {
    'title': f'What the layers of {config.model.name} know',
    'facts': evaluate.describe(config, trained, getattr(splits, name)) | {
      'inspected on': f'{len(shown.labels)} {name} images; probes fitted on '
                      f'{len(fitted.labels)} training images',
    },
    'class_names': list(classifier.class_names),
    'labels': shown.labels,
    'network_accuracy': float(np.mean(logits.argmax(1) == shown.labels)),
    'probes': probed, 'embeddings': embedded, 'similarity': similar,
    'neurons': excited, 'channels': differing, 'weights': weights,
    'regions': replaced, 'seconds': stages.seconds,
  }
  _write(workdir, result)
  runs.LOG.info('Page: %s', workdir / 'inspection.html')
  return {row['layer']: row['accuracy'] for row in probed}


def choose_groups(
  class_names: Sequence[str], groups: Sequence[str]
) -> tuple[tuple[int, ...], tuple[int, ...]]:
  """Returns the classes of two groups of images.

  Args:
    class_names: of the classifier.
    groups: a class against the rest, two against each other, or nothing: the
      first against the rest.

  Raises:
    ValueError: an unknown class (the nearest is named), or three and more.
  """
  groups = tuple(groups) or class_names[:1]
  for group in groups:
    if group not in class_names:
      near = difflib.get_close_matches(group, class_names, 3, 0.3)
      raise ValueError(
        f'--groups: there is no class {group!r}, next to it are '
        f'{", ".join(near or class_names)}.'
      )
  if len(groups) > 2 or len(set(groups)) < len(groups):
    raise ValueError(f'--groups takes one or two classes, got {groups}.')
  first, *second = (class_names.index(group) for group in groups)
  return (first,), tuple(second) or tuple(
    k for k in range(len(class_names)) if k != first
  )


def _other_features(key, other, shown, classifier, options):
  """Features of the layers of another network, None without one."""
  if other is None:
    return None
  config, workdir = other
  key_data, key_train = runs.split_keys(config)[:2]
  trained = train.train_or_restore(
    key_train, config, workdir, lambda: train.load_data(key_data, config)
  )
  theirs = trained.classifier
  if theirs.channels != classifier.channels:
    raise ValueError(
      f'--other_config: its network takes {theirs.channels} channels, the '
      f'images have {classifier.channels}.'
    )
  names = (
    features.INPUT, *features.outline(theirs, options.num_layers),
    features.LOGITS,
  )
  images = image_sets.resize_all(list(shown.images), theirs.image_size)
  return features.extract(key, theirs, images, names)


def _excite(key, classifier, means, labels, options):
  """Images for the logits and for channels that are typical of a class."""
  if not options.num_neurons:
    return []
  settings = ascent.Settings(
    num_steps=options.ascent_steps, learning_rate=0.15, basis='fourier',
    jitter=2, total_variation=0.05,
  )
  names = classifier.class_names
  chosen = {
    name: layer_parts.typical_channels(values, labels, options.num_neurons)
    for name, values in means.items()
  }
  chosen[features.LOGITS] = [(k, k) for k in range(min(8, len(names)))]
  parts = []
  for i, (name, which) in enumerate(chosen.items()):
    found = neurons.maximise(
      jax.random.fold_in(key, i), classifier, name, [c for c, _ in which],
      rectify=name != features.LOGITS, settings=settings, allow_dead=True,
    )
    part = dataclasses.asdict(found)
    part['indices'] = part['channels']
    part['channels'] = [
      names[k] if name == features.LOGITS else f'{c} ({names[k]})'
      for c, k in which
    ]
    parts.append(part)
  return parts


def _write(workdir, result):
  figures = inspection_figures.draw_all(result)
  folder = workdir / 'inspection'
  files.make_directory(folder)
  for stem, png in figures.items():
    files.write_bytes(folder / f'{stem.replace(" ", "_")}.png', png)
  if result['neurons']:
    buffer = io.BytesIO()
    np.savez_compressed(
      buffer, **{part['layer']: part['images'] for part in result['neurons']}
    )
    files.write_bytes(folder / 'neurons.npz', buffer.getvalue())
  document = tables.plain(_without_images(result))
  runs.write_json(workdir / 'inspection.json', document)
  files.write_text(
    workdir / 'inspection.html', inspection_page.render(result, figures)
  )


def _without_images(value):
  if isinstance(value, dict):
    return {
      name: _without_images(entry) for name, entry in value.items()
      if name not in ('images', 'examples')
    }
  if isinstance(value, list | tuple):
    return [_without_images(entry) for entry in value]
  return value


def _other():
  if _OTHER_CONFIG.value is None:
    return None
  config = runs.resolve(_OTHER_CONFIG.value)
  workdir = _OTHER_WORKDIR.value or runs.default_workdir(config)
  return config, pathlib.Path(workdir)


if __name__ == '__main__':
  app.run(runs.make_main(lambda config, workdir: run(
    config, workdir, Options(
      layers=_LAYERS.value, num_images=_NUM_IMAGES.value, groups=_GROUPS.value,
      num_neurons=_NUM_NEURONS.value, ascent_steps=_NUM_STEPS.value,
      perplexity=_PERPLEXITY.value, stain_level=_STAIN_LEVEL.value,
      fill=_FILL.value,
    ), _other(),
  )))
