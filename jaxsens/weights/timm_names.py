"""Names of the timm library, in torchvision's.

    timm                                  torchvision
    conv_stem, bn1                        features.0.{0,1}
    blocks.<s>.<j>, convolution k         MobileNetV2      features.<i>.conv.<k>
      and its norm                        MobileNetV3     features.<i>.block.<k>
                                          EfficientNet
                                                   features.<s+1>.<j>.block.<k>
    blocks.<s>.<j>.se.conv_{reduce,expand}       <block>.<k>.{fc1,fc2}
    conv_head, bn2                        the last of features; classifier.0 in
                                          MobileNetV3
    classifier                            classifier.1 or .3
    pre_logits.{fc1,fc2}, head.fc (VGG)   classifier.{0,3,6}

i counts the blocks of all stages. timm's residual networks have torchvision's
names. timm's batch norms have epsilon 1e-5 also where torchvision's have 1e-3
(MobileNetV3), see `adaptation.change_epsilon`. SqueezeNet and ShuffleNetV2 are
not among timm's models (1.0.31), so there are no names of theirs to know.

References:
  timm 1.0: timm.models.mobilenetv3, .efficientnet, ._efficientnet_blocks, .vgg.
"""

import re

import numpy as np

from jaxsens.weights import state_dicts

EPSILON = 1e-5
"""Epsilon of timm's batch norms, but for models called `tf_*`."""

_BLOCK = re.compile(r'blocks\.(\d+)\.(\d+)\.(.+)\.(\w+)')
_VGG = {
  'pre_logits.fc1': 'classifier.0',
  'pre_logits.fc2': 'classifier.3',
  'head.fc': 'classifier.6',
}
_SQUEEZE = {'se.conv_reduce': 'fc1', 'se.conv_expand': 'fc2'}
_FAMILIES = {
  'mobilenet_v2': 'mobilenet_v2',
  'mobilenet_v3_small': 'mobilenet_v3',
  'mobilenet_v3_large': 'mobilenet_v3',
  'efficientnet_b0': 'efficientnet',
  'efficientnet_b1': 'efficientnet',
  'vgg16_bn': 'vgg',
}


def is_timm(state_dict: state_dicts.StateDict) -> bool:
  """Returns whether names are timm's and not torchvision's."""
  starts = ('conv_stem.', 'pre_logits.')
  return any(name.startswith(starts) for name in state_dict)


def to_torchvision(
  state_dict: state_dicts.StateDict, architecture: str
) -> dict[str, np.ndarray]:
  """Returns a state dict of timm by torchvision's names.

  Dense layers that timm writes as 1x1 (VGG: 7x7) convolutions become matrices.

  Args:
    state_dict: arrays by timm's names.
    architecture: a key of `registry.ARCHITECTURES`.

  Raises:
    ValueError: no names of timm are known for this network, or one of them is
      not what this network has.
  """
  if architecture not in _FAMILIES:
    raise ValueError(
      f'timm names of {architecture!r} are not known, only of '
      f'{sorted(_FAMILIES)}.'
    )
  family = _FAMILIES[architecture]
  modules = _modules(state_dict, family)
  renamed = {}
  for name, array in state_dict.items():
    module, _, leaf = name.rpartition('.')
    target = modules.get(module, module)
    if target.startswith('classifier.') and array.ndim == 4:
      array = array.reshape(len(array), -1)
    renamed[f'{target}.{leaf}'] = array
  return renamed


def _modules(
  state_dict: state_dicts.StateDict, family: str
) -> dict[str, str]:
  """Returns torchvision's path of every module of timm."""
  if family == 'vgg':
    return dict(_VGG)
  blocks: dict[tuple[int, int], set[str]] = {}
  for name in state_dict:
    match = _BLOCK.fullmatch(name)
    if match:
      stage, index, module, _ = match.groups()
      blocks.setdefault((int(stage), int(index)), set()).add(module)
  modules = {'conv_stem': 'features.0.0', 'bn1': 'features.0.1'}
  for i, place in enumerate(sorted(blocks), 1):
    names = _block(blocks[place], _path(family, i, place), family)
    timm = f'blocks.{place[0]}.{place[1]}'
    modules |= {f'{timm}.{n}': target for n, target in names.items()}
  stages = 1 + max((stage for stage, _ in blocks), default=0)
  count = stages if family == 'efficientnet' else len(blocks)
  return modules | _heads(family, count + 1)


def _path(family: str, i: int, place: tuple[int, int]) -> str:
  if family == 'efficientnet':
    return f'features.{place[0] + 1}.{place[1]}'
  return f'features.{i}'


def _block(modules: set[str], path: str, family: str) -> dict[str, str]:
  if 'conv' in modules:
    return {'conv': f'{path}.0', 'bn1': f'{path}.1'}
  expands = 'conv_pwl' in modules
  order = ('conv_pw', 'conv_dw', 'conv_pwl') if expands else (
    'conv_dw', 'conv_pw'
  )
  body = f'{path}.conv' if family == 'mobilenet_v2' else f'{path}.block'
  names, position = {}, 0
  for k, convolution in enumerate(order, 1):
    last = k == len(order)
    if last and 'se.conv_reduce' in modules:
      squeezed = {n: f'{body}.{position}.{t}' for n, t in _SQUEEZE.items()}
      names |= squeezed
      position += 1
    if last and family == 'mobilenet_v2':
      pair = (f'{body}.{position}', f'{body}.{position + 1}')
    else:
      pair = (f'{body}.{position}.0', f'{body}.{position}.1')
    names |= dict(zip((convolution, f'bn{k}'), pair, strict=True))
    position += 1
  return names


def _heads(family: str, last: int) -> dict[str, str]:
  if family == 'mobilenet_v3':
    return {'conv_head': 'classifier.0', 'classifier': 'classifier.3'}
  return {
    'conv_head': f'features.{last}.0',
    'bn2': f'features.{last}.1',
    'classifier': 'classifier.1',
  }
