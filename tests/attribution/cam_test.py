"""Activation maps against closed forms, plain formulas and captum."""

from absl.testing import parameterized
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.attribution import cam
from jaxsens.attribution import layer_scores
from jaxsens.attribution import rectifiers
from tests.oracles import small_networks
from tests.oracles import torch_networks
from tests.oracles import torchvision_networks
from tests.oracles import torchvision_ops

pytestmark = pytest.mark.usefixtures('quick_compiles')


class _MeanNetwork(nnx.Module):
  """Convolution of stride 2 - mean - linear."""

  def __init__(self, num_classes):
    rngs = nnx.Rngs(0)
    self.features = nnx.Conv(3, 5, (3, 3), (2, 2), rngs=rngs)
    self.head = nnx.Linear(5, num_classes, rngs=rngs)

  def __call__(self, images):
    return self.head(jnp.mean(self.features(images), (1, 2)))


def _images(size, number=2):
  rng = np.random.default_rng(3)
  return rng.uniform(size=(number, *size, 3)).astype(np.float32)


def _of(model, size, num_classes):
  return classifiers.from_flax(
    model, preprocess=classifiers.identity,
    class_names=tuple(map(str, range(num_classes))), image_size=size,
    channels=3,
  )


def _mean_classifier(size=(8, 12), num_classes=4):
  return _of(_MeanNetwork(num_classes), size, num_classes)


def _class_activation_maps(images):
  """Returns Σ_k weight[k, class] A[..., k] of the mean network."""
  model = _MeanNetwork(4)
  return np.asarray(model.features(images) @ model.head.kernel[...])


class CamTest(parameterized.TestCase):

  def test_grad_cam_before_mean_and_linear_is_the_class_activation_map(self):
    images, targets = _images((8, 12)), np.array([3, 1])
    expected = np.stack([
      _class_activation_maps(images)[b, ..., k] for b, k in enumerate(targets)
    ])
    for kind, factor in (
      ('grad_cam', 1 / 24), ('grad_cam_sum', 1), ('hires_cam', 1 / 24)
    ):
      found = cam.layer_maps(
        _mean_classifier(), images, targets, layer='features', kind=kind,
        relu=False,
      )
      np.testing.assert_allclose(
        found, expected * factor, rtol=1e-5, atol=1e-6
      )
      found = cam.activation_map(_mean_classifier(), images, targets, kind=kind)
      self.assertEqual(found.layer, 'features')
      np.testing.assert_allclose(
        found.layer_maps, np.maximum(expected, 0) * factor, rtol=1e-5,
        atol=1e-6,
      )

  @parameterized.parameters(*cam.KINDS)
  def test_maps_are_those_of_the_formulas(self, kind):
    classifier = small_networks.classifier(jax.random.key(2))
    images, target = _images((8, 8)), 1
    model = small_networks.SmallNetwork(3, 4, rngs=nnx.Rngs(0))
    nnx.update(model, classifier.params)
    x = jax.nn.relu(model.norm(model.stem(classifier.preprocess(images))))
    x = nnx.max_pool(x, (2, 2), (2, 2))
    a = np.float64(model.second(jax.nn.relu(model.first(x))))
    # The score is head(mean(relu(x + a))).
    weights = np.float64(model.head.kernel[...])[:, target]
    g = np.where(x + a > 0, weights / 16, 0)
    sums = a.sum((1, 2), keepdims=True)
    with np.errstate(invalid='ignore'):
      alpha = np.nan_to_num(g**2 / (2 * g**2 + sums * g**3))
    places = {'axis': (1, 2), 'keepdims': True}
    w = {
      'grad_cam': g.mean(**places), 'grad_cam_sum': g.sum(**places),
      'grad_cam++': (alpha * np.maximum(g, 0)).sum(**places),
      'hires_cam': g, 'layer_cam': np.maximum(g, 0),
    }[kind]
    expected = (w * a).sum(-1)
    signed, plain = (
      cam.activation_map(
        classifier, images, target, layer='second', kind=kind, relu=relu
      )
      for relu in (False, True)
    )
    atol = 1e-5 * np.abs(expected).max()
    np.testing.assert_allclose(signed.layer_maps, expected, atol=atol)
    self.assertLess(signed.layer_maps.min(), 0)
    np.testing.assert_allclose(
      plain.layer_maps, np.maximum(expected, 0), atol=atol
    )
    np.testing.assert_allclose(
      plain.scores, classifier(images)[:, target], rtol=1e-5
    )

  def test_maps_are_enlarged_with_height_and_width_in_place(self):
    images = _images((8, 12))
    found = cam.activation_map(_mean_classifier(), images, 0, relu=False)
    self.assertEqual(found.layer_maps.shape, (2, 4, 6))
    self.assertEqual(found.values.shape, (2, 8, 12, 1))
    # Centres of pixels in units of the coarse ones, held at the border.
    rows, columns = np.arange(8) / 2 - 0.25, np.arange(12) / 2 - 0.25
    for small, large in zip(found.layer_maps, found.values, strict=True):
      tall = np.stack([np.interp(rows, np.arange(4), c) for c in small.T], 1)
      expected = [np.interp(columns, np.arange(6), r) for r in tall]
      np.testing.assert_allclose(large[..., 0], expected, atol=1e-6)

  @parameterized.parameters(
    ('logit', None), ('probability', (2, 0)), ('margin', None)
  )
  def test_maps_of_all_classes_are_those_of_each(self, quantity, classes):
    classifier = small_networks.classifier(jax.random.key(2))
    images = _images((8, 8), 3)
    options = {'quantity': quantity, 'kind': 'layer_cam'}
    found = cam.grad_cam_of_classes(
      classifier, images, 'first', classes=classes, chunk_size=2, **options
    )
    classes = range(4) if classes is None else classes
    self.assertEqual(found.shape, (3, len(classes), 8, 8))
    for i, k in enumerate(classes):
      single = cam.activation_map(
        classifier, images, k, layer='first', **options
      )
      np.testing.assert_allclose(
        found[:, i], single.values[..., 0], atol=1e-6
      )

  def test_many_classes_are_taken_in_turns(self):
    classifier = _mean_classifier(num_classes=37)
    images = _images((8, 12))
    found = cam.grad_cam_of_classes(classifier, images, relu=False)
    self.assertEqual(found.shape, (2, 37, 8, 12))
    for k in (0, 15, 16, 36):
      single = cam.activation_map(classifier, images, k, relu=False)
      np.testing.assert_allclose(found[:, k], single.values[..., 0], atol=1e-6)

  def test_layers_together_are_the_layers_alone(self):
    classifier = small_networks.classifier(jax.random.key(2))
    images = _images((8, 8), 3)
    self.assertEqual(
      layer_scores.layers_with_maps(classifier),
      ('stem', 'norm', 'first', 'second'),
    )
    names = ('second', 'stem', 'norm')
    together = cam.layer_cams(classifier, images, layers=names, chunk_size=2)
    self.assertEqual(tuple(together), names)
    for name, found in together.items():
      alone = cam.activation_map(classifier, images, layer=name, chunk_size=3)
      np.testing.assert_allclose(found.values, alone.values, atol=1e-6)
      np.testing.assert_array_equal(found.num_gradients, 1)
    self.assertGreater(np.ptp(together['stem'].values), 1e-4)

  def test_guided_grad_cam_is_the_product_of_its_two_parts(self):
    classifier = small_networks.classifier(jax.random.key(2))
    images = _images((8, 8))
    found = cam.guided_grad_cam(classifier, images, 1, layer='norm')
    guided = rectifiers.guided_backpropagation(classifier, images, 1)
    small = cam.activation_map(classifier, images, 1, layer='norm')
    np.testing.assert_allclose(
      found.values, guided.values * small.values, rtol=1e-6
    )
    self.assertGreater(np.abs(found.values).max(), 1e-5)
    np.testing.assert_array_equal(found.num_gradients, 2)

  def test_agrees_with_captum_on_squeezenet(self):
    attr = pytest.importorskip('captum.attr', reason='captum is the oracle')
    torchvision = torchvision_ops.import_torchvision()
    import torch

    model = torchvision_networks.network(
      'squeezenet1_1_reduced7', dropout=0.0
    )
    made = torchvision.models.squeezenet1_1(num_classes=7, dropout=0.0)
    made.features = made.features[:7]
    made.classifier[1] = torch.nn.Conv2d(256, 7, 1)
    peer = torch_networks.fill(made, model).eval()
    classifier, targets = _of(model, (48, 64), 7), np.array([1, 5])
    images = _images((48, 64))
    inputs = torch.from_numpy(images.transpose(0, 3, 1, 2))
    goals = torch.from_numpy(targets)
    layers = ('features.3', 'features.4.expand3x3', 'features.6')
    found = cam.layer_cams(
      classifier, images, targets, layers=layers, relu=False
    )
    for name in layers:
      layer = peer.get_submodule(name)
      expected = attr.LayerGradCam(peer, layer).attribute(inputs, goals)
      _check_relative(
        found[name].layer_maps, expected[:, 0].detach().numpy()
      )

  @parameterized.parameters(
    ({'layer': 'secnd'}, "no layer 'secnd'; next to it are second"),
    ({'layer': 'head'}, r"layer 'head' has no map of places.* got \(4,\)"),
    ({'kind': 'cam'}, "kind must be one of .*'grad_cam'.* got 'cam'"),
    ({'targets': 4}, 'targets must be classes from 0 to 3'),
  )
  def test_bad_input_is_refused(self, options, message):
    classifier = small_networks.classifier(jax.random.key(2))
    with self.assertRaisesRegex(ValueError, message):
      cam.activation_map(classifier, _images((8, 8)), **options)

  def test_network_or_class_that_cannot_be_served_is_refused(self):
    classifier = small_networks.classifier(jax.random.key(2))
    images = _images((8, 8))
    with self.assertRaisesRegex(ValueError, 'classes from 0 to 3, got .*7'):
      cam.grad_cam_of_classes(classifier, images, classes=(0, 7))
    with self.assertRaisesRegex(ValueError, 'sequence of names'):
      cam.layer_cams(classifier, images, layers='stem')
    plain = small_networks.linear(jax.random.key(0))
    with self.assertRaisesRegex(TypeError, 'Flax'):
      cam.activation_map(plain, images)


def _check_relative(actual, expected, rtol=1e-4):
  largest = np.abs(expected).max()
  np.testing.assert_allclose(actual, expected, rtol=0, atol=rtol * largest)
