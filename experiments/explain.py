r"""Shows which pixels speak for the answers of the classifier of a config.

  python -m experiments.explain --config=configs/steel.py
  python -m experiments.explain --config=configs/steel_masks.py \
    --methods='integrated gradients,DeepLIFT,RISE' --images=0,5 \
    --factor=rotation --randomised --indices

Trains on first use, as `experiments.train` does. Writes `explanation.json`,
`attributions.npz`, `explanation.html` and the folder `explanation` of figures
into the run directory: a heat map of every method for every image, with its
completeness error and its cost; the activation maps of all classes; and which
pixels carry the effect of each factor of the config, by the integral of the
gradient along the perturbation.

On request: `--factor`, the heat maps of the first image over the range of a
factor, and with `--path_to` the path of that factor to a value; `--randomised`,
the same methods on a network of permuted parameters; `--believe`, what happens
to the answers where the maps say that they should change, and to the maps where
they should; `--indices`, Sobol indices of where the heat map of a method
(`--indices_of`) lies; `--annotate`, each image large beside its first heat map.
`--render_only` draws figures and page again from the two files.
"""

from collections.abc import Sequence
import dataclasses
import io
import json
import pathlib

from absl import app
from absl import flags
import jax
from ml_collections import ConfigDict
import numpy as np

from experiments import attribution_indices
from experiments import believing
from experiments import evaluate
from experiments import explained_images
from experiments import explanation_parts
from experiments import methods as methods_lib
from experiments import runs
from experiments import train
from jaxsens import files
from jaxsens.attribution import layer_scores
from jaxsens.attribution import maps
from jaxsens.data import image_sets
from jaxsens.perturbations import registry
from jaxsens.reports import attribution_page
from jaxsens.reports import tables

DEFAULT_METHODS = (
  'gradient x input', 'integrated gradients', 'SmoothGrad', 'DeepLIFT',
  'Grad-CAM', 'guided Grad-CAM', 'occlusion', 'RISE',
)

_METHODS = flags.DEFINE_list(
  'methods', [], 'Names of experiments/methods.py; none takes eight of them.'
)
_IMAGES = flags.DEFINE_list(
  'images', [], 'Names or numbers of test images; none takes '
  'config.data.num_images, the classes in turn.'
)
_TARGET = flags.DEFINE_string(
  'target', 'predicted', 'What is explained: predicted, label, or a class.'
)
_QUANTITY = flags.DEFINE_string(
  'quantity', 'logit', 'Of the class: logit, probability, margin, ...'
)
_NUM_STEPS = flags.DEFINE_integer('num_steps', 50, 'Gradients of integrals.')
_NUM_MASKS = flags.DEFINE_integer('num_masks', 400, 'Of black-box methods.')
_LAYER = flags.DEFINE_string(
  'layer', None, 'Of the activation maps; default the last with a map.'
)
_FACTOR = flags.DEFINE_string('factor', None, 'A factor of the config.')
_PATH_TO = flags.DEFINE_float(
  'path_to', None, 'Value of --factor at which its path ends; default: for '
  'every factor the end of its range that changes the score more.'
)
_RANDOMISED = flags.DEFINE_bool(
  'randomised', False, 'Explain a network of permuted parameters as well.'
)
_BELIEVE = flags.DEFINE_bool(
  'believe', False, 'Check whether each method can be believed.'
)
_INDICES = flags.DEFINE_bool(
  'indices', False, 'Sobol indices of where a heat map lies.'
)
_INDICES_OF = flags.DEFINE_string('indices_of', 'Grad-CAM', 'The method.')
_INDICES_NODES = flags.DEFINE_integer(
  'indices_nodes', 256, 'Perturbed images of each at most.'
)
_ANNOTATE = flags.DEFINE_bool(
  'annotate', False, 'Write each image large beside its first heat map.'
)
_RENDER_ONLY = flags.DEFINE_bool(
  'render_only', False, 'Draw again from explanation.json.'
)


@dataclasses.dataclass(frozen=True)
class Options:
  """What is explained, and how; the flags of the same names."""

  methods: Sequence[str] = ()
  images: Sequence[str] = ()
  target: str = 'predicted'
  quantity: str = 'logit'
  num_steps: int = 50
  num_masks: int = 400
  layer: str | None = None
  factor: str | None = None
  path_to: float | None = None
  randomised: bool = False
  believe: bool = False
  indices: bool = False
  indices_of: str = 'Grad-CAM'
  indices_nodes: int = 256
  annotate: bool = False
  render_only: bool = False

  def __post_init__(self):
    methods_lib.chosen([*self.methods, self.indices_of])
    for field, least in (('num_steps', 1), ('num_masks', 4)):
      if getattr(self, field) < least:
        raise ValueError(
          f'--{field} must be at least {least}, got {getattr(self, field)}.'
        )
    if self.path_to is not None and self.factor is None:
      raise ValueError('--path_to needs --factor, the factor that it is of.')


def run(
  config: ConfigDict, workdir: pathlib.Path, options: Options | None = None
) -> dict:
  """Explains images; returns the document that is written."""
  options = options or Options()
  if options.render_only:
    return _render_again(workdir)
  check_factor(config, options)
  runs.start(config, workdir)
  key_data, key_train, _, _, key = runs.split_keys(config)
  splits = train.load_data(key_data, config)
  part = splits.test if len(splits.test) else splits.validation
  class_names = part.class_names
  explained_images.check_target(class_names, options.target)
  trained = train.train_or_restore(key_train, config, workdir, lambda: splits)
  classifier = trained.classifier
  if options.layer is not None:
    layer_scores.with_map(classifier, options.layer)
  keys = jax.random.split(key, 6)
  frames = explained_images.decoded(explained_images.choose_images(
    part, classifier, config, options.images
  ))
  images = image_sets.resize_all(frames.images, classifier.image_size)
  logits = evaluate.answer(classifier, images)
  targets = explained_images.choose_targets(
    options.target, class_names, logits, frames.labels
  )
  chosen = methods_lib.chosen(options.methods or DEFAULT_METHODS)
  context = methods_lib.Context(
    key=keys[0], classifier=classifier,
    references=explained_images.references(keys[1], splits, classifier),
    layer=options.layer, quantity=options.quantity,
    num_steps=options.num_steps, num_masks=options.num_masks,
  )
  masks = explained_images.defects(frames)
  stages = runs.Stages()
  arrays = {'images': images}
  if masks is not None:
    arrays['masks'] = explained_images.resized(masks, classifier.image_size)
  with stages('heat maps'):
    entries, values, skipped = explanation_parts.attribute(
      context, chosen, images, targets, skip=not options.methods
    )
    _add(arrays, 'values', values)
  with stages('activation maps of classes'):
    classes = _class_maps(context, images, logits, arrays)
  with stages('paths'):
    paths = _paths(keys[2], context, config, frames, targets, options, arrays)
  panel = None
  if options.factor is not None:
    with stages('range of the factor'):
      panel, found = explanation_parts.panel(
        keys[2], context, {name: chosen[name] for name in values}, config,
        frames, 0, int(targets[0]), options.factor,
      )
      _add(arrays, 'panel', found)
  randomised = []
  if options.randomised:
    with stages('permuted parameters'):
      randomised, found = explanation_parts.randomise(
        keys[3], context, chosen, images, targets, values
      )
      _add(arrays, 'randomised', found)
  belief = []
  if options.believe:
    with stages('whether to believe'):
      belief = believing.check(
        keys[5], context, {name: chosen[name] for name in values}, images,
        targets, values,
      )
  indices = None
  if options.indices:
    with stages('indices of the heat map'):
      indices = attribution_indices.find(
        keys[4], context, config, frames, masks, targets, options.indices_of,
        options.indices_nodes,
      )
  facts = evaluate.describe(config, trained, frames)
  document = tables.plain({
    'title': f'What {config.model.name} looks at',
    'facts': facts | {
      'assessed on': None, 'explained': f'{options.quantity} of the class '
      f'that is {options.target}'
      if options.target in explained_images.TARGETS else
      f'{options.quantity} of {options.target}',
      'images': f'{len(frames)} of {part.description}',
    },
    'settings': dataclasses.asdict(options), 'quantity': options.quantity,
    'class_names': class_names, 'mask_names': frames.mask_names,
    'images': [
      {
        'name': frames.names[i], 'label': frames.labels[i],
        'answer': logits[i].argmax(), 'target': targets[i],
        'certainty': evaluate.certainty_of(classifier, logits[i:i + 1])[0],
        'score': score,
      } for i, score in enumerate(maps.run(
        maps.scores_of, [images, targets], 8, classifier,
        quantity=options.quantity,
      ))
    ],
    'methods': entries, 'skipped': skipped, 'classes': classes, 'panel': panel,
    'paths': paths, 'randomised': randomised, 'belief': belief,
    'indices': indices, 'annotate': options.annotate,
    'seconds': stages.seconds,
  })
  runs.write_json(workdir / 'explanation.json', document)
  buffer = io.BytesIO()
  np.savez_compressed(buffer, **arrays)
  files.write_bytes(workdir / 'attributions.npz', buffer.getvalue())
  _write(workdir, document, arrays)
  return document


def check_factor(config: ConfigDict, options: Options) -> None:
  """Raises ValueError for a factor or an end of its path that there is not."""
  name, value = options.factor, options.path_to
  if name is None:
    return
  if name not in config.factor_order:
    raise ValueError(
      f'--factor: the config has no factor {name!r}, it has '
      f'{", ".join(config.factor_order)}.'
    )
  lower, upper = registry.parameter(name)[1].limits
  if value is not None and not lower <= value <= upper:
    raise ValueError(
      f'--path_to of {name} must be in [{lower:g}, {upper:g}], got {value:g}.'
    )


def _class_maps(context, images, logits, arrays):
  try:
    classes, found = explanation_parts.class_maps(context, images, logits)
  except (TypeError, ValueError) as error:
    if context.layer is not None:
      raise
    runs.LOG.warning('No activation maps: %s', error)
    return None
  arrays['classes'] = found
  return classes


def _paths(key, context, config, frames, targets, options, arrays):
  names = config.factor_order
  if options.path_to is not None:
    names = (options.factor,)
  found = []
  for name in names:
    part = explanation_parts.paths(
      key, context, config, frames, targets, name, options.path_to
    )
    if part is not None:
      found.append(part[0])
      _add(arrays, f'paths/{name}', part[1])
  return found


def _add(arrays, folder, found):
  arrays |= {f'{folder}/{name}': value for name, value in found.items()}


def _render_again(workdir):
  path = workdir / 'explanation.json'
  if not path.is_file():
    raise ValueError(f'--render_only: there is no {path}.')
  document = json.loads(path.read_text())
  with np.load(workdir / 'attributions.npz') as archive:
    arrays = dict(archive)
  _write(workdir, document, arrays)
  return document


def _write(workdir, document, arrays):
  runs.LOG.info('Figures ...')
  attribution_page.write_all(workdir, document, arrays)
  runs.LOG.info('Page: %s', workdir / 'explanation.html')


if __name__ == '__main__':
  app.run(runs.make_main(lambda config, workdir: run(
    config, workdir, Options(**{
      field.name: flags.FLAGS[field.name].value
      for field in dataclasses.fields(Options)
    }),
  )))
