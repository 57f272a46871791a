"""What other libraries call the perturbations, for the benchmark.

Only calls of equal meaning are listed: the same operation on float images where
the library has it, at a value from the middle of our range. A library that
takes no value per image gets one value for the whole batch, which is to its
advantage. Libraries that take one image at a time get one, on one core; what
works on an array whatever its shape gets the whole batch.
"""

from collections.abc import Callable
from collections.abc import Sequence
import dataclasses
import importlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.benchmarks import nrtk_peers
from jaxsens.perturbations import severity
from third_party.pytorch_baselines import torchvision_import

LIBRARIES = (
  'torchvision', 'kornia', 'imagecorruptions', 'dm_pix', 'skimage', 'nrtk'
)
"""Where peers are looked for."""

# Radians of 20 degrees.
_ANGLE = 0.35


@dataclasses.dataclass(frozen=True)
class Peer:
  """One call of a library.

  Attributes:
    library: one of `LIBRARIES`.
    num_images: images that the call does.
    call: does the work and returns when it is done.
  """

  library: str
  num_images: int
  call: Callable[[], Any]


def load(log: Callable[[str], Any]) -> dict[str, types.ModuleType]:
  """Returns the libraries that can be imported; logs a line on each other."""
  found = {}
  for name in LIBRARIES:
    try:
      found[name] = (
        torchvision_import.load() if name == 'torchvision'
        else importlib.import_module(name)
      )
      # Parts of a library that it does not import itself.
      for part in _PARTS.get(name, ()):
        importlib.import_module(f'{name}.{part}')
    # An old library may trip over anything in a new one.
    except Exception as error:
      found.pop(name, None)
      log(f'{name} is left out: {type(error).__name__}: {error}')
  return found


def peers(
  modules: dict[str, types.ModuleType],
  images: np.ndarray,
  log: Callable[[str], Any],
) -> dict[str, list[Peer]]:
  """Returns the calls by the name of our perturbation or 'imagenet_c/<name>'.

  Args:
    modules: from `load`.
    images: (B, H, W, 3) float32 in [0, 1].
    log: receives a line on each library whose names are others here.
  """
  table: dict[str, list[Peer]] = {}
  for library, module in modules.items():
    make, per_image = _MAKERS[library]
    try:
      calls = make(module, images)
    except (AttributeError, ImportError, TypeError) as error:
      log(f'{library} is left out: {type(error).__name__}: {error}')
      continue
    for name, call in calls.items():
      whole = not per_image or (library, name) in _WHOLE
      count = len(images) if whole else 1
      table.setdefault(name, []).append(Peer(library, count, call))
  return table


def working(
  found: Sequence[Peer], log: Callable[[str], Any]
) -> list[Peer]:
  """Returns the peers whose call works here; logs a line on each other."""
  kept = []
  for peer in found:
    try:
      peer.call()
    except Exception as error:
      text = str(error).splitlines()[:1]
      log(f'{peer.library} fails: {type(error).__name__}: {text}')
      continue
    kept.append(peer)
  return kept


def _torchvision(module, images):
  torch = importlib.import_module('torch')
  batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
  levels = (batch * 255).to(torch.uint8)
  f = module.transforms.functional
  v2 = importlib.import_module('torchvision.transforms.v2.functional')
  height, width = images.shape[1:3]
  linear = f.InterpolationMode.BILINEAR
  displacement = 0.02 * torch.randn(1, height, width, 2)
  kernel = _odd(12, images)

  def affine(angle=0.0, shift=(0, 0), scale=1.0, shear=(0.0, 0.0)):
    return lambda: f.affine(
      batch, angle, list(shift), scale, list(shear), interpolation=linear
    )

  def perspective():
    corners = [[0, 0], [width, 0], [width, height], [0, height]]
    moved = [[0.1 * width, 0], [0.9 * width, 0], *corners[2:]]
    return f.perspective(batch, corners, moved, interpolation=linear)

  box = (
    height // 8, width // 8, max(1, 3 * height // 4), max(1, 3 * width // 4)
  )
  return {
    'brightness': lambda: f.adjust_brightness(batch, 1.3),
    'contrast': lambda: f.adjust_contrast(batch, 1.3),
    'gamma': lambda: f.adjust_gamma(batch, 1.3),
    'saturation': lambda: f.adjust_saturation(batch, 1.3),
    'hue': lambda: f.adjust_hue(batch, 0.05),
    'posterise': lambda: f.posterize(levels, 4),
    'solarise': lambda: f.solarize(batch, 0.6),
    'invert': lambda: f.invert(batch),
    'rotation': lambda: f.rotate(batch, 20.0, interpolation=linear),
    'translation_x': affine(shift=(width // 10, 0)),
    'translation_y': affine(shift=(0, height // 10)),
    'scale': affine(scale=1.2),
    'shear_x': affine(shear=(10.0, 0.0)),
    'shear_y': affine(shear=(0.0, 10.0)),
    **dict.fromkeys(('tilt', 'tilt_x', 'tilt_y', 'keystone'), perspective),
    'crop': lambda: f.resized_crop(
      batch, *box, [height, width], antialias=True
    ),
    'flip_x': lambda: f.hflip(batch),
    'flip_y': lambda: f.vflip(batch),
    'gaussian_blur': lambda: f.gaussian_blur(batch, [kernel] * 2, [2.0, 2.0]),
    'elastic': lambda: f.elastic_transform(
      batch, displacement, interpolation=linear
    ),
    'gaussian_noise': lambda: v2.gaussian_noise(batch, 0.0, 0.1),
    'jpeg_codec': lambda: [v2.jpeg(image, 50) for image in levels],
  }


def _kornia(module, images):
  torch = importlib.import_module('torch')
  batch = torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))
  count, height, width = images.shape[:3]
  enhance, filters = module.enhance, module.filters
  augmentation, moved = module.augmentation, module.geometry.transform
  full = lambda *values: torch.tensor([values] * count)
  noise = 2 * torch.rand(1, 2, height, width) - 1
  corners = torch.tensor([[
    [0.0, 0.0], [width, 0.0], [width, height], [0.0, height]
  ]])
  corners_moved = corners + torch.tensor([[
    [0.1 * width, 0], [-0.1 * width, 0], [0, 0], [0, 0]
  ]])
  homography = moved.get_perspective_transform(
    corners, corners_moved
  ).expand(count, 3, 3)
  kernel = _odd(12, images)
  camera = torch.tensor([[
    [width, 0.0, width / 2], [0.0, width, height / 2], [0.0, 0.0, 1.0]
  ]]).expand(count, 3, 3)
  lens = torch.tensor([[0.1, 0.0, 0.0, 0.0]]).expand(count, 4)

  def perspective():
    return moved.warp_perspective(batch, homography, (height, width))

  def augment(name, **options):
    layer = getattr(augmentation, name)(p=1.0, **options)
    return lambda: layer(batch)

  return {
    'offset': lambda: enhance.adjust_brightness(batch, 0.2),
    'contrast': lambda: enhance.adjust_contrast_with_mean_subtraction(
      batch, 1.3
    ),
    'gamma': lambda: enhance.adjust_gamma(batch, 1.3),
    'saturation': lambda: enhance.adjust_saturation_with_gray_subtraction(
      batch, 1.3
    ),
    'hue': lambda: enhance.adjust_hue(batch, 0.3),
    'posterise': lambda: enhance.posterize(batch, 4),
    'solarise': lambda: enhance.solarize(batch, 0.6),
    'invert': lambda: enhance.invert(batch),
    'rotation': lambda: moved.rotate(batch, full(20.0)[:, 0]),
    'translation_x': lambda: moved.translate(batch, full(20.0, 0.0)),
    'translation_y': lambda: moved.translate(batch, full(0.0, 20.0)),
    'scale': lambda: moved.scale(batch, full(1.2)),
    'shear_x': lambda: moved.shear(batch, full(0.2, 0.0)),
    'shear_y': lambda: moved.shear(batch, full(0.0, 0.2)),
    **dict.fromkeys(('tilt', 'tilt_x', 'tilt_y', 'keystone'), perspective),
    'lens': lambda: module.geometry.calibration.undistort_image(
      batch, camera, lens
    ),
    'flip_x': lambda: moved.hflip(batch),
    'flip_y': lambda: moved.vflip(batch),
    'gaussian_blur': lambda: filters.gaussian_blur2d(
      batch, (kernel, kernel), (2.0, 2.0), 'replicate'
    ),
    'motion_blur': lambda: filters.motion_blur(
      batch, _odd(15, images), 30.0, 0.0, 'replicate'
    ),
    'elastic': lambda: moved.elastic_transform2d(
      batch, noise.expand(count, 2, height, width), (63, 63), (10.0, 10.0)
    ),
    'gaussian_noise': augment('RandomGaussianNoise', std=0.1),
    'impulse_noise': augment('RandomSaltAndPepperNoise', amount=0.1),
    'illumination_gradient': augment('RandomLinearIllumination'),
    'white_balance': augment('RandomPlanckianJitter'),
    'rain': augment(
      'RandomRain', number_of_drops=(200, 200), drop_height=(5, 10),
      drop_width=(-3, 3),
    ),
    'jpeg': lambda: enhance.jpeg_codec_differentiable(
      batch, torch.tensor([50.0])
    ),
  }


def _imagecorruptions(module, images):
  levels = np.uint8(np.round(images[0] * 255))
  names = {
    'gaussian_noise': 'gaussian_noise', 'shot_noise': 'shot_noise',
    'impulse_noise': 'impulse_noise', 'speckle_noise': 'speckle_noise',
    'gaussian_blur': 'gaussian_blur', 'defocus': 'defocus_blur',
    'glass_blur': 'glass_blur', 'motion_blur': 'motion_blur',
    'zoom_blur': 'zoom_blur', 'fog': 'fog', 'frost': 'frost', 'snow': 'snow',
    'spatter': 'spatter', 'contrast': 'contrast', 'pixelate': 'pixelate',
    'jpeg_codec': 'jpeg_compression', 'elastic': 'elastic_transform',
  }

  def corrupt(name):
    return lambda: module.corrupt(levels, severity=3, corruption_name=name)

  return {ours: corrupt(theirs) for ours, theirs in names.items()} | {
    f'imagenet_c/{name}': corrupt(name) for name in severity.names('imagenet_c')
  }


def _dm_pix(module, images):
  batch = jnp.asarray(images)
  kernel = _odd(12, images)
  keys = jax.random.split(jax.random.key(0), len(images))

  def each(function, value):
    compiled = jax.jit(jax.vmap(function))
    values = jnp.full(len(images), value, jnp.float32)
    return lambda: jax.block_until_ready(compiled(batch, values))

  def affine(matrix):
    return each(lambda image, value: module.affine_transform(
      image, jnp.asarray(matrix) * jnp.array([[value], [value], [1.0]])
    ), 1.0)

  elastic = jax.jit(jax.vmap(lambda key, image: module.elastic_deformation(
    key, image, 40.0, 10.0
  )))
  return {
    'offset': each(module.adjust_brightness, 0.2),
    'contrast': each(module.adjust_contrast, 1.3),
    'gamma': each(module.adjust_gamma, 1.3),
    'hue': each(module.adjust_hue, 0.05),
    'saturation': each(module.adjust_saturation, 1.3),
    'solarise': each(module.solarize, 0.6),
    'rotation': each(module.rotate, _ANGLE),
    'scale': affine([[0.8, 0.0, 0.0], [0.0, 0.8, 0.0], [0.0, 0.0, 1.0]]),
    'shear_x': affine([[1.0, 0.0, 0.0], [0.2, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    'shear_y': affine([[1.0, 0.2, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]),
    'flip_x': each(lambda image, _: module.flip_left_right(image), 0.0),
    'flip_y': each(lambda image, _: module.flip_up_down(image), 0.0),
    'gaussian_blur': each(
      lambda image, sigma: module.gaussian_blur(image, sigma, kernel), 2.0
    ),
    'elastic': lambda: jax.block_until_ready(elastic(keys, batch)),
  }


def _skimage(module, images):
  image = images[0]
  height, width = image.shape[:2]
  noise = module.util.random_noise
  transform = module.transform
  corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], float)
  moved = corners + [[0.1 * width, 0], [-0.1 * width, 0], [0, 0], [0, 0]]

  def warp(mapping):
    return lambda: transform.warp(image, mapping)

  # The method from_estimate replaced estimate.
  estimate = getattr(transform.ProjectiveTransform, 'from_estimate', None)
  projective = warp(estimate(moved, corners)) if estimate else None
  return {
    'gamma': lambda: module.exposure.adjust_gamma(images, 1.3),
    'invert': lambda: module.util.invert(images),
    'gaussian_blur': lambda: module.filters.gaussian(
      image, 2.0, mode='nearest', channel_axis=-1
    ),
    'gaussian_noise': lambda: noise(images, 'gaussian', var=0.01),
    'speckle_noise': lambda: noise(images, 'speckle', var=0.04),
    'impulse_noise': lambda: noise(images, 's&p', amount=0.1),
    'rotation': lambda: transform.rotate(image, 20.0),
    'scale': warp(transform.AffineTransform(scale=0.8)),
    'shear_x': warp(transform.AffineTransform(shear=0.2)),
    'translation_x': warp(transform.AffineTransform(translation=(20, 0))),
    'translation_y': warp(transform.AffineTransform(translation=(0, 20))),
    **({'tilt': projective, 'tilt_x': projective, 'tilt_y': projective,
        'keystone': projective} if projective else {}),
  }


def _odd(size, images):
  """The next odd length of a kernel that fits the images."""
  return min(size, min(images.shape[1:3]) - 2) // 2 * 2 + 1


_PARTS = {
  'skimage': ('exposure', 'filters', 'transform', 'util'),
  'kornia': ('augmentation', 'enhance', 'filters', 'geometry'),
}
# Library: maker of its calls, and whether they take one image at a time.
_MAKERS = {
  'torchvision': (_torchvision, False), 'kornia': (_kornia, False),
  'imagecorruptions': (_imagecorruptions, True), 'dm_pix': (_dm_pix, False),
  'skimage': (_skimage, True), 'nrtk': (nrtk_peers.calls, True),
}
# Of the others: what takes an array of any shape, the whole batch at once.
_WHOLE = frozenset(
  ('skimage', name) for name in (
    'gamma', 'invert', 'gaussian_noise', 'speckle_noise', 'impulse_noise'
  )
)
