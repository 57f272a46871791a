"""The manifest against torchvision's own tables and the documents."""

import pathlib
import re

import pytest

from jaxsens.models import registry
from jaxsens.weights import manifest
from tests.oracles import torchvision_ops

ENTRIES = tuple(manifest.PUBLIC_WEIGHTS.values())
OF_TORCHVISION = [e for e in ENTRIES if '.imagenet1k_v' in e.name]


@pytest.mark.parametrize('entry', OF_TORCHVISION, ids=lambda e: e.name)
def test_entries_equal_torchvisions_tables(entry):
  models = torchvision_ops.import_torchvision().models
  variant = entry.name.partition('.')[2].upper()
  table = models.get_model_weights(entry.architecture)[variant]
  assert entry.url == table.url
  assert entry.url.endswith(f'-{entry.sha256}.pth')
  assert entry.is_downloadable
  scores = table.meta['_metrics']['ImageNet-1K']
  assert (entry.top1, entry.top5) == (scores['acc@1'], scores['acc@5'])
  known = registry.find(entry.architecture)
  assert known.num_parameters == table.meta['num_params']
  how, preset = entry.preprocessing, table.transforms()
  assert [how.resize] == preset.resize_size
  assert [how.crop] == preset.crop_size
  assert how.interpolation == preset.interpolation.value
  assert (how.mean, how.std) == (tuple(preset.mean), tuple(preset.std))
  assert how.padding == 'torch'


def test_every_variant_of_torchvision_is_listed():
  models = torchvision_ops.import_torchvision().models
  listed = {e.name for e in OF_TORCHVISION}
  for architecture in {e.architecture for e in OF_TORCHVISION}:
    for weights in models.get_model_weights(architecture):
      assert f'{architecture}.{weights.name.lower()}' in listed


@pytest.mark.parametrize('entry', ENTRIES, ids=lambda e: e.name)
def test_every_entry_names_a_network_and_is_described_with_its_licence(entry):
  registry.find(entry.architecture)
  assert re.fullmatch('[0-9a-f]{8,64}', entry.sha256)
  document = pathlib.Path(__file__).parents[1] / 'third_party' / 'weights.md'
  line = next(
    line for line in document.read_text().splitlines()
    if f'`{entry.filename}`' in line
  )
  for value in (entry.url, entry.sha256[:16], entry.licence):
    assert value in line


def test_names_find_entries_and_architectures_their_usual_one():
  find = manifest.find
  assert find('resnet50').filename == 'resnet50-0676ba61.pth'
  assert find('resnet50.imagenet1k_v2').filename == 'resnet50-11ad3fa6.pth'
  assert find('lenet').num_classes == 10
  names = [e.name for e in manifest.of_architecture('mobilenet_v2')]
  assert names == [
    'mobilenet_v2.imagenet1k_v1', 'mobilenet_v2.imagenet1k_v2',
    'mobilenet_v2.keras',
  ]
  with pytest.raises(ValueError, match="mean 'resnet18.pqf'"):
    find('resnet18.pqv')
