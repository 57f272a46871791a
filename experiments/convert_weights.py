"""Fetches, verifies and converts weights of others, and writes them back.

    python -m experiments.convert_weights --list
    python -m experiments.convert_weights --networks
    python -m experiments.convert_weights --model=resnet18
    python -m experiments.convert_weights --model=mobilenet_v2 --source=keras
    python -m experiments.convert_weights --model=resnet18 --source=mine.pth \\
      --num_classes=6 --channels=1 --format=safetensors --output=mine
    python -m experiments.convert_weights --source=runs/steel/checkpoint \\
      --format=safetensors

`--source` is an entry of the manifest (by default the usual one of the model),
a file (.pth, .pt, .safetensors, .npz), an address, or the folder of a
checkpoint of this package. Downloads go to `$JAXSENS_CACHE/weights`, are taken
up again where they broke off, and are read only when their SHA-256 is the
expected one.

`--format=orbax` writes a checkpoint of this package, `safetensors` a state dict
with torchvision's names, layouts and shapes:

    network.load_state_dict(safetensors.torch.load_file('mine.safetensors'))

What the checkpoint says of its network (dropout, stem, padding, normalisation,
names of the classes) stands in the header and counts again where such a file is
the source. torchvision's networks have neither another stem nor another
padding; whoever runs such weights there has to make them. Networks with kernels
get the names of `weights.kernel_names`; their length scale stands in the header
alone, without which such a file is refused.
"""

from collections.abc import Iterator
import dataclasses
import json
import pathlib
import sys
from typing import Any

from absl import app
from absl import flags
from absl import logging as absl_logging
from flax import nnx
import jax

from experiments import kernel_networks
from experiments import weight_sources
from jaxsens import classifiers
from jaxsens.models import registry
from jaxsens.models import states
from jaxsens.training import checkpoints
from jaxsens.weights import cache
from jaxsens.weights import convert
from jaxsens.weights import kernel_names
from jaxsens.weights import manifest
from jaxsens.weights import safetensors
from jaxsens.weights import state_dicts

FORMATS = ('orbax', 'safetensors')
GRAY = classifiers.Normalise((0.5,), (0.5,))


@dataclasses.dataclass(frozen=True)
class Request:
  """What to convert to what; the flags of the command.

  Attributes:
    model: name of the network.
    source: entry of the manifest, file, address or folder of a checkpoint; None
      is the usual entry of the model.
    output: where to write; None is beside the cache.
    format: 'orbax' or 'safetensors'.
    num_classes: number of classes; None is that of the source.
    channels: 3, or 1, which turns the stem into one for gray images; None is 3,
      or what a file of this package says.
    entry: entry of a .pth file that holds the state dict.
    sha256: first digits of the SHA-256 of a file or address.
    padding: 'torch' or 'same'; None is what the manifest or a file of this
      package says, or 'torch'.
    batch_norm_epsilon: of the source, where it is unusual.
    allow_unused: pass over names that the network does not have.
    class_names: text file of one name per line, or csv with a column `name`,
      in the order of the logits.
  """

  model: str | None = None
  source: str | None = None
  output: str | None = None
  format: str = 'orbax'
  num_classes: int | None = None
  channels: int | None = None
  entry: str | None = None
  sha256: str = ''
  padding: str | None = None
  batch_norm_epsilon: float | None = None
  allow_unused: bool = False
  class_names: str | None = None


def define_flags() -> None:
  """Defines the flags: `list`, and one per field of `Request`."""
  flags.DEFINE_bool('list', False, 'Print the manifest.')
  flags.DEFINE_bool('networks', False, 'Print the networks.')
  flags.DEFINE_enum('format', 'orbax', FORMATS, 'What to write.')
  flags.DEFINE_enum(
    'padding', None, ('torch', 'same'), "By default the manifest's, or torch."
  )
  flags.DEFINE_bool(
    'allow_unused', False, 'Pass over names that the network does not have.'
  )
  for name, default, text in (
    ('model', None, 'Name of the network.'),
    ('source', None, 'Entry of the manifest, file, address or checkpoint.'),
    ('output', None, 'Where to write; by default beside the cache.'),
    ('entry', None, 'Entry of a .pth file that holds the state dict.'),
    ('sha256', '', 'First digits of the SHA-256 of a file or address.'),
    ('class_names', None, 'Text file of one name per line, or csv with a '
     'column `name`, in the order of the logits.'),
  ):  # fmt: skip
    flags.DEFINE_string(name, default, text)
  flags.DEFINE_integer(
    'num_classes', None, 'Number of classes; by default that of the source.'
  )
  flags.DEFINE_integer(
    'channels', None, '1 turns the stem into one for gray images.'
  )
  flags.DEFINE_float(
    'batch_norm_epsilon', None, 'Of the source, where it is unusual.'
  )


def convert_file(
  source: weight_sources.Source, request: Request
) -> tuple[nnx.Module, dict[str, Any], list[str]]:
  """Returns a network filled from a source, facts of it and what was done.

  Raises:
    ValueError: the weights do not fit the network.
  """
  num_classes, public = request.num_classes, source.public
  own = weight_sources.own_facts(source.path)
  model = (
    request.model or own.get('architecture')
    or (public.architecture if public else None)
  )
  if model is None:
    raise ValueError(f'--model is needed to read {source.path}.')
  if own.get('architecture', model) != model:
    raise ValueError(
      f'{source.path} holds a {own["architecture"]}, not a {model}.'
    )
  known = registry.find(model)
  channels = request.channels or own.get('channels', 3)
  state_dict = state_dicts.read(source.path, entry=request.entry)
  lines = [_describe(source, state_dict)]
  if kernel_names.are_in(state_dict):
    return _with_kernels(source, request, own, state_dict, lines)
  given_classes = _classes(state_dict, known)
  num_classes = given_classes if num_classes is None else num_classes
  how = public.preprocessing if public else manifest.Preprocessing()
  options = own.get('options', {'padding': how.padding})
  if request.padding:
    options = {**options, 'padding': request.padding}
  if options.get('padding') == 'torch':
    del options['padding']
  given = how.normalise
  if own:
    given = classifiers.Normalise(tuple(own['mean']), tuple(own['std']))
  kept = channels == own.get('channels', 3)
  make = lambda: registry.create(
    model, jax.random.key(0), num_classes, in_channels=channels, **options
  )
  # Initial values are drawn only where some of them stay.
  blank = nnx.eval_shape(make) if num_classes == given_classes else make()
  loaded = convert.load(
    model, blank, state_dict, epsilon=request.batch_norm_epsilon,
    allow_unused=request.allow_unused, rgb=given, gray=GRAY,
  )
  lines += [*loaded.notes, *_left(loaded), *weight_sources.unusual(options)]
  arrays = states.flatten(loaded.model)
  lines.append(
    f'{model}: {sum(x.size for x in arrays.values()):,} values in '
    f'{len(arrays)} arrays, {num_classes} classes, {channels} channels'
  )
  normalise = given if kept else GRAY
  names = own.get('class_names', ())
  if request.class_names or len(names) != num_classes:
    names = weight_sources.class_names(request.class_names, num_classes)
  facts = {
    'architecture': model, 'class_names': tuple(names), 'channels': channels,
    'mean': normalise.mean, 'std': normalise.std, 'options': options,
    'image_size': tuple(own.get('image_size', known.image_size)),
    'data': own.get('data', f'unknown, {source.path.name}'),
  }
  if public:
    facts |= {'image_size': (how.crop,) * 2, 'data': public.data}
  return loaded.model, facts, lines


def _with_kernels(source, request, own, state_dict, lines):
  """As `convert_file`; such a file is taken as it is or not at all."""
  model, facts = kernel_networks.from_file(
    source.path, own, state_dict, num_classes=request.num_classes,
    channels=request.channels, padding=request.padding,
    batch_norm_epsilon=request.batch_norm_epsilon,
  )
  if request.class_names:
    facts['class_names'] = weight_sources.class_names(
      request.class_names, len(facts['class_names'])
    )
  lines += [*weight_sources.unusual(facts['options']), (
    f'{facts["architecture"]} with kernels of the length scale '
    f'{facts["options"][kernel_networks.OPTION]:g}, '
    f'{len(facts["class_names"])} classes'
  )]
  return model, facts, lines


def _classes(state_dict, known: registry.Architecture) -> int:
  """Returns the number of classes of the head of a state dict."""
  heads = (
    known.head, f'{known.head}.1', 'classifier', 'head.fc', 'fc'
  )
  for name in heads:
    weight = state_dict.get(f'{name}.weight')
    if weight is not None:
      return len(weight)
  return known.num_classes


def _describe(source: weight_sources.Source, state_dict) -> str:
  size = source.path.stat().st_size / 2**20
  verified = (
    f'verified by {source.verified}' if source.verified
    else 'NOT verified, no digest is known'
  )
  kinds = sorted({str(x.dtype) for x in state_dict.values()})
  return (
    f'{source.path} ({size:.1f} MiB): SHA-256 {source.digest}, {verified}\n'
    f'{len(state_dict)} arrays of {", ".join(kinds)}'
  )


def _left(loaded: convert.Loaded) -> Iterator[str]:
  counters = [n for n in loaded.unused if n.endswith('num_batches_tracked')]
  others = [n for n in loaded.unused if n not in counters]
  if loaded.fresh:
    yield f'left fresh: {", ".join(loaded.fresh)}'
  if others:
    yield f'not used: {", ".join(others)}'
  if counters:
    yield f'not used: {len(counters)} counters of batch norm'


def read_checkpoint(
  folder: pathlib.Path,
) -> tuple[nnx.Module, checkpoints.Metadata]:
  """Returns the network of a checkpoint of this package.

  Raises:
    FileNotFoundError: there is no checkpoint.
    ValueError: it does not fit the network that it names.
  """
  metadata = checkpoints.read_metadata(folder)
  blank = kernel_networks.blank(
    metadata.architecture, metadata.class_names, metadata.channels,
    metadata.image_size, metadata.options,
  )
  try:
    return checkpoints.restore(folder, blank, expected={})
  except ValueError as error:
    kernel_networks.explain(folder, metadata.options, error)
    raise


def write(
  path: pathlib.Path, form: str, model: nnx.Module, metadata
) -> pathlib.Path:
  """Writes a network; returns the file or folder."""
  if form == 'orbax':
    checkpoints.save(path, model, metadata)
    return path
  path = path if path.suffix == '.safetensors' else path.with_name(
    f'{path.name}.safetensors'
  )
  path.parent.mkdir(parents=True, exist_ok=True)
  if kernel_networks.OPTION in metadata.options:
    arrays = kernel_names.to_torch_names(model)
  else:
    arrays = convert.to_torchvision_names(model, metadata.architecture)
  safetensors.write(
    path, arrays,
    metadata={
      'format': 'pt', 'architecture': metadata.architecture,
      weight_sources.HEADER: json.dumps({
        name: getattr(metadata, name) for name in weight_sources.FACTS
      }),
    },
  )
  return path


def run(request: Request) -> pathlib.Path:
  """Converts and prints what was done; returns what was written."""
  folder = pathlib.Path(request.source) if request.source else None
  if folder is not None and checkpoints.exists(folder):
    model, metadata = read_checkpoint(folder)
    print(f'{folder}: checkpoint of {metadata.architecture}')
    for line in weight_sources.unusual(metadata.options):
      print(line)
    name = f'{folder.resolve().parent.name}-{folder.name}'
  else:
    source = weight_sources.find(
      request.source, request.model, sha256=request.sha256
    )
    model, facts, lines = convert_file(source, request)
    print('\n'.join(lines))
    metadata = _metadata(facts, source)
    name = f'{facts["architecture"]}-{source.path.stem}'
  path = pathlib.Path(
    request.output or cache.folder().parent / 'converted' / name
  )
  written = write(path, request.format, model, metadata)
  print(f'written: {written}')
  return written


def _metadata(
  facts: dict[str, Any], source: weight_sources.Source
) -> checkpoints.Metadata:
  public = source.public
  published = {} if public is None or public.top1 is None else {
    'published_top1': public.top1
  }
  return checkpoints.Metadata(
    config_hash=f'sha256:{source.digest}', metrics=published, **facts
  )


def main(argv: list[str]) -> None:
  """Converts, or prints the manifest."""
  if len(argv) > 1:
    raise app.UsageError(f'unexpected arguments: {argv[1:]}')
  absl_logging.set_verbosity(absl_logging.WARNING)
  if flags.FLAGS.networks:
    print(weight_sources.networks())
    return
  if flags.FLAGS.list:
    print(weight_sources.listing())
    return
  try:
    fields = dataclasses.fields(Request)
    run(Request(**{f.name: flags.FLAGS[f.name].value for f in fields}))
  except (ValueError, OSError) as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  define_flags()
  app.run(main)
