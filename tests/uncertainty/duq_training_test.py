"""Training with kernels: against torch, interrupted, and on bad data."""

import dataclasses
import functools
import tempfile

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from jaxsens import classifiers
from jaxsens.models import states
from jaxsens.training import checkpoints
from jaxsens.training import loop
from jaxsens.training import snapshots
from jaxsens.uncertainty import duq
from jaxsens.uncertainty import duq_objective
from tests import training_test
from tests.uncertainty import duq_test

TRAIN, VALIDATION = training_test.TRAIN, training_test.VALIDATION


def _fine_tune(network, objective, train=TRAIN, validation=VALIDATION,
               class_weights=None, **options):
  fields = {field.name for field in dataclasses.fields(loop.Settings)}
  settings = {
    'num_epochs': 1, 'batch_size': 16, 'learning_rate': 0.05,
    'optimizer': 'sgd', 'schedule': 'constant', 'warmup_epochs': 0,
  } | {name: options.pop(name) for name in fields & set(options)}
  return loop.fine_tune(
    jax.random.key(0), network, train, validation,
    preprocess=training_test.GRAY,
    class_weights=np.ones(3) if class_weights is None else class_weights,
    settings=loop.Settings(**settings), objective=objective, **options,
  )


def _arrays(network):
  return {n: np.array(x) for n, x in states.flatten(network).items()}


class GoldenStepTest(parameterized.TestCase):

  @parameterized.product(norm=(False, True), penalty=(0.0, 0.5))
  def test_two_updates_equal_those_of_torch(self, norm, penalty):
    try:
      import torch

      from third_party.pytorch_baselines import duq_step
    except ImportError:
      self.skipTest('torch is the oracle here')
    network = duq_test.small_network(norm, length_scale=0.5)
    before = _arrays(network)
    images, labels = TRAIN.images[:12], TRAIN.labels[:12]
    tuned = _fine_tune(
      network, duq_objective.Objective(penalty=penalty, decay=0.9),
      train=loop.LabelledImages(images, labels), batch_size=12, num_epochs=2,
      validation=loop.LabelledImages(images, labels), momentum=0.9,
      weight_decay=5e-4,
    )
    self.assertEqual(tuned.best_epoch, 1)

    as_torch = lambda name: torch.tensor(before[name])
    convolution = torch.nn.Conv2d(1, 6, 3, padding=1, bias=False)
    batch_norm = torch.nn.BatchNorm2d(6) if norm else torch.nn.Identity()
    with torch.no_grad():
      convolution.weight.copy_(
        as_torch('extractor.conv1.kernel').permute(3, 2, 0, 1)
      )
      if norm:
        batch_norm.running_mean.copy_(as_torch('extractor.bn1.mean'))
        batch_norm.running_var.copy_(as_torch('extractor.bn1.var'))
    extractor = torch.nn.Sequential(
      convolution, batch_norm, torch.nn.ReLU(), torch.nn.AdaptiveAvgPool2d(1),
      torch.nn.Flatten(),
    )
    peer = duq_step.Duq(
      extractor, *map(as_torch, ('head.kernels', 'head.counts', 'head.sums')),
      length_scale=0.5,
    )
    optimizer = torch.optim.SGD(
      peer.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4
    )
    inputs = torch.tensor(2 * images - 1).permute(0, 3, 1, 2)
    losses = [
      duq_step.step(
        peer, optimizer, inputs, torch.tensor(labels).long(), penalty=penalty,
        decay=0.9,
      )
      for _ in range(2)
    ]
    found = _arrays(tuned.model)
    expected = {
      'head.kernels': peer.kernels, 'head.counts': peer.counts,
      'head.sums': peer.sums,
      'extractor.conv1.kernel': convolution.weight.permute(2, 3, 1, 0),
    }
    if norm:
      expected |= {
        'extractor.bn1.scale': batch_norm.weight,
        'extractor.bn1.bias': batch_norm.bias,
        'extractor.bn1.mean': batch_norm.running_mean,
        'extractor.bn1.var': batch_norm.running_var,
      }
    self.assertEqual(set(expected), set(found))
    for name, array in expected.items():
      array = array.detach().numpy()
      self.assertGreater(np.abs(array - before[name]).max(), 1e-4, name)
      np.testing.assert_allclose(found[name], array, atol=1e-5, err_msg=name)
    np.testing.assert_allclose(
      [epoch.train_loss for epoch in tuned.history], losses, rtol=1e-5
    )


@functools.cache
def _tuned(centroids):
  """Returns a network trained for some epochs, and its history."""
  return _fine_tune(
    duq_test.small_network(),
    duq_objective.Objective(0.1, 0.9, centroids=centroids), num_epochs=8,
    learning_rate=0.02, optimizer='adam', flip=0.5, ema_decay=0.5,
  )


class TrainingTest(parameterized.TestCase):

  @parameterized.parameters('eval', 'train')
  def test_network_learns_and_is_surest_on_the_data(self, centroids):
    tuned = _tuned(centroids)
    self.assertGreater(tuned.history[-1].validation.scores.accuracy, 0.9)
    known, strange = (
      duq.certainty(loop.predict(
        tuned.model, images, preprocess=training_test.GRAY
      ))
      for images in (VALIDATION.images, 1 - 5 * VALIDATION.images)
    )
    self.assertGreater(known.mean(), 0.7)
    self.assertLess(strange.mean(), known.mean() - 0.3)

  @parameterized.parameters('eval', 'train')
  def test_every_array_moves(self, centroids):
    before = _arrays(duq_test.small_network())
    for name, array in _arrays(_tuned(centroids).model).items():
      self.assertTrue((array != before[name]).any(), name)

  def test_validation_loss_is_that_of_the_kernels(self):
    tuned = _tuned('eval')
    best = tuned.history[tuned.best_epoch].validation
    log_kernels = loop.predict(
      tuned.model, VALIDATION.images, preprocess=training_test.GRAY
    )
    np.testing.assert_allclose(
      best.loss,
      duq.binary_cross_entropy(
        jnp.asarray(log_kernels), jnp.asarray(VALIDATION.labels)
      ),
      rtol=1e-4,
    )

  def test_evaluation_leaves_the_state_and_is_deterministic(self):
    network = _tuned('eval').model
    before = _arrays(network)
    first, second = (
      loop.predict(network, VALIDATION.images, preprocess=training_test.GRAY)
      for _ in range(2)
    )
    np.testing.assert_array_equal(first, second)
    for name, array in _arrays(network).items():
      np.testing.assert_array_equal(array, before[name], err_msg=name)

  def test_checkpoint_restores_bitwise(self):
    network = _tuned('eval').model
    path = self.enterContext(tempfile.TemporaryDirectory())
    metadata = checkpoints.Metadata(
      'small', ('a', 'b', 'c'), (8, 8), 1, (0.5,), (0.5,), 'stripes', 'hash', {}
    )
    checkpoints.save(f'{path}/kept', network, metadata)
    restored, _ = checkpoints.restore(
      f'{path}/kept', duq_test.small_network(), expected={}
    )
    found = _arrays(restored)
    for name, array in _arrays(network).items():
      np.testing.assert_array_equal(found[name], array, err_msg=name)

  def test_interrupted_training_ends_bitwise_as_if_it_was_not(self):
    class Interruption(Exception):
      pass

    def interrupt(epoch):
      if epoch.epoch == 3:
        raise Interruption

    path = self.enterContext(tempfile.TemporaryDirectory())
    kept = lambda: snapshots.Snapshots(f'{path}/kept', {'seed': 0})
    options = dict(
      num_epochs=8, learning_rate=0.02, optimizer='adam', flip=0.5,
      ema_decay=0.5,
    )
    objective = duq_objective.Objective(0.1, 0.9)
    with self.assertRaises(Interruption):
      _fine_tune(
        duq_test.small_network(), objective, snapshots=kept(),
        on_epoch=interrupt, **options,
      )
    seen = []
    again = _fine_tune(
      duq_test.small_network(), objective, snapshots=kept(),
      on_resume=seen.extend, **options,
    )
    self.assertLen(seen, 4)
    found = _arrays(again.model)
    for name, array in _arrays(_tuned('eval').model).items():
      np.testing.assert_array_equal(found[name], array, err_msg=name)

  def test_penalty_changes_the_training_and_is_in_its_loss(self):
    one = loop.LabelledImages(TRAIN.images[:16], TRAIN.labels[:16])
    plain, penalised, flat = (
      _fine_tune(
        duq_test.small_network(), duq_objective.Objective(penalty), train=one
      ).history[0].train_loss
      for penalty in (0.0, 0.5, 1.0)
    )
    self.assertGreater(penalised, plain)
    np.testing.assert_allclose(flat - plain, 2 * (penalised - plain), rtol=1e-4)

  def test_classifier_of_a_network_answers_with_log_kernels(self):
    network = _tuned('eval').model
    classifier = classifiers.from_flax(
      network, preprocess=training_test.GRAY, class_names=('a', 'b', 'c'),
      image_size=(8, 8), channels=1,
    )
    np.testing.assert_allclose(
      classifier(VALIDATION.images),
      loop.predict(network, VALIDATION.images, preprocess=training_test.GRAY),
      rtol=1e-5,
    )


class BadInputTest(parameterized.TestCase):

  def test_class_without_training_images_is_named(self):
    few = loop.LabelledImages(
      TRAIN.images[TRAIN.labels != 1], TRAIN.labels[TRAIN.labels != 1]
    )
    with self.assertRaisesRegex(ValueError, r'classes \[1\] of 0..2'):
      _fine_tune(duq_test.small_network(), duq_objective.Objective(), train=few)

  @parameterized.parameters('mixup', 'label_smoothing', 'noise_doubling')
  def test_settings_that_blend_classes_are_refused(self, name):
    with self.assertRaisesRegex(ValueError, f'{name} must be 0.*0.1'):
      _fine_tune(
        duq_test.small_network(), duq_objective.Objective(), **{name: 0.1}
      )

  @parameterized.parameters(
    ({'penalty': -1.0}, 'penalty'), ({'decay': 1.0}, 'decay'),
    ({'sides': 'three'}, 'sides'), ({'centroids': 'none'}, 'centroids'),
    ({'penalty': float('nan')}, 'penalty.*nan'),
  )
  def test_options_that_make_no_sense_are_named(self, options, message):
    with self.assertRaisesRegex(ValueError, message):
      duq_objective.Objective(**options)

  def test_nan_images_stop_the_training(self):
    broken = loop.LabelledImages(
      np.where(np.arange(70)[:, None, None, None] == 3, np.nan, TRAIN.images),
      TRAIN.labels,
    )
    with self.assertRaisesRegex(FloatingPointError, 'loss is nan'):
      _fine_tune(
        duq_test.small_network(), duq_objective.Objective(), train=broken,
        num_epochs=3,
      )
