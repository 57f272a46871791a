import dataclasses
import functools

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens.models import layers
from jaxsens.models import resnet
from jaxsens.models import states
from jaxsens.training import loop
from jaxsens.training import losses
from jaxsens.training import metrics
from jaxsens.training import optimizers
from jaxsens.training import schedules
from jaxsens.uncertainty import spectral
from tests.oracles import small_networks

pytestmark = pytest.mark.usefixtures('quick_compiles')

GRAY = classifiers.Normalise((0.5,), (0.5,))


@functools.cache
def _network():
  return small_networks.Trainable(nnx.Rngs(0))


def _stripes(number, seed):
  """Returns images of three kinds: level, horizontal and vertical stripes."""
  rng = np.random.default_rng(seed)
  labels = rng.integers(0, 3, number).astype(np.int32)
  waves = np.sin(np.arange(8) * np.pi / 1.5)
  kinds = np.stack(
    [np.zeros((8, 8)), *np.broadcast_arrays(waves[:, None], waves[None])]
  )
  images = 0.5 + 0.3 * kinds[labels] + 0.05 * rng.normal(size=(number, 8, 8))
  return loop.LabelledImages(
    images[..., None].astype(np.float32).clip(0, 1), labels
  )


TRAIN, VALIDATION = _stripes(70, seed=1), _stripes(21, seed=2)


def _fine_tune(key=0, network=None, train=TRAIN, **options):
  settings = dict(num_epochs=1, batch_size=16, learning_rate=1e-2)
  names = {field.name for field in dataclasses.fields(loop.Settings)}
  settings |= {n: options.pop(n) for n in names & set(options)}
  return loop.fine_tune(
    jax.random.key(key),
    network or _network(),
    train,
    options.pop('validation', VALIDATION),
    preprocess=GRAY,
    class_weights=options.pop('class_weights', np.ones(3)),
    settings=loop.Settings(**settings),
    **options,
  )


def test_network_learns_and_the_best_epoch_is_kept():
  seen = []
  tuned = _fine_tune(num_epochs=12, on_epoch=seen.append)
  losses = [epoch.validation.loss for epoch in tuned.history]
  assert tuned.best_epoch == int(np.argmin(losses))
  assert tuple(seen) == tuned.history
  assert [epoch.epoch for epoch in seen] == list(range(12))
  # Three kinds of images that differ plainly; chance is a third.
  assert tuned.history[-1].validation.scores.accuracy > 0.9
  assert tuned.history[-1].train_loss < 0.7 * tuned.history[0].train_loss
  again = loop.evaluate(
    tuned.model, VALIDATION, preprocess=GRAY, class_weights=np.ones(3)
  )
  np.testing.assert_allclose(again.loss, min(losses), rtol=1e-5)


def test_an_earlier_epoch_is_kept_when_later_ones_are_worse():
  # Labels of the validation that contradict training: it gets worse at once.
  contrary = loop.LabelledImages(
    VALIDATION.images, (VALIDATION.labels + 1) % 3
  )
  tuned = _fine_tune(num_epochs=6, validation=contrary)
  first = _fine_tune(num_epochs=tuned.best_epoch + 1, validation=contrary)
  assert tuned.best_epoch < 5
  for name, array in states.flatten(first.model).items():
    np.testing.assert_array_equal(states.flatten(tuned.model)[name], array)


def test_the_same_key_gives_bitwise_the_same_network_and_another_does_not():
  first, second, other = (
    states.flatten(_fine_tune(key, num_epochs=2).model) for key in (0, 0, 1)
  )
  for name, array in first.items():
    np.testing.assert_array_equal(array, second[name], err_msg=name)
  assert any((first[name] != other[name]).any() for name in first)


def test_training_leaves_the_given_network_as_it_was():
  before = {n: np.array(x) for n, x in states.flatten(_network()).items()}
  _fine_tune()
  for name, array in states.flatten(_network()).items():
    np.testing.assert_array_equal(array, before[name], err_msg=name)


def test_every_array_of_resnet18_changes_in_one_step():
  abstract = nnx.eval_shape(
    lambda: resnet.resnet18(jax.random.key(0), 3, in_channels=1, dropout=0.5)
  )
  rng = np.random.default_rng(0)
  drawn = {
    name: rng.normal(0, 0.05, x.shape)
    for name, x in states.flatten(abstract).items()
  }
  network = states.replace(
    abstract,
    {
      name: np.abs(x) if name.endswith('var') else x
      for name, x in drawn.items()
    },
  )
  data = loop.LabelledImages(
    rng.random((4, 33, 33, 1), np.float32), np.array([0, 1, 2, 1])
  )
  # Without decay, which alone would move everything that is not zero.
  tuned = _fine_tune(
    network=network, train=data, validation=data, weight_decay=0.0
  )
  before, after = states.flatten(network), states.flatten(tuned.model)
  # 62 parameters (stem and head among them) and 40 running moments.
  assert len(before) == 102
  for name, array in before.items():
    assert (array != after[name]).any(), f'{name} did not change'


def test_one_update_equals_torchs_adamw_on_a_linear_network():
  torch = pytest.importorskip('torch', reason='torch is the oracle here')

  class Linear(nnx.Module):
    def __init__(self):
      self.fc = layers.linear(4, 3, rngs=nnx.Rngs(0))

    def __call__(self, images, *, train=False, key=None):
      return self.fc(images.reshape(len(images), -1))

  rng = np.random.default_rng(0)
  images = rng.random((6, 2, 2, 1), np.float32)
  labels, weights = np.array([0, 1, 2, 1, 0, 1]), np.array([0.5, 1.0, 3.0])
  data, network = loop.LabelledImages(images, labels), Linear()
  tuned = _fine_tune(
    network=network,
    train=data,
    validation=data,
    num_epochs=6,
    batch_size=6,
    learning_rate=0.05,
    weight_decay=0.1,
    warmup_epochs=2,
    end_epoch=4,
    class_weights=weights,
  )
  assert tuned.best_epoch == 5

  peer = torch.nn.Linear(4, 3)
  with torch.no_grad():
    peer.weight.copy_(torch.tensor(np.asarray(network.fc.kernel[...].T)))
    peer.bias.copy_(torch.tensor(np.asarray(network.fc.bias[...])))
  optimizer = torch.optim.AdamW(peer.parameters(), lr=0.05, weight_decay=0.1)
  loss_fn = torch.nn.CrossEntropyLoss(torch.tensor(weights).float())
  inputs = torch.tensor(2 * images.reshape(6, 4) - 1)
  losses = []
  # Epochs of one batch: the factors 1, 1, 1, 0.55, 0.1, 0.1 by hand.
  for factor in (1, 1, 1, 0.55, 0.1, 0.1):
    optimizer.param_groups[0]['lr'] = 0.05 * factor
    optimizer.zero_grad()
    loss = loss_fn(peer(inputs), torch.tensor(labels))
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
  arrays = states.flatten(tuned.model)
  np.testing.assert_allclose(
    arrays['fc.kernel'].T, peer.weight.detach(), atol=1e-5
  )
  np.testing.assert_allclose(arrays['fc.bias'], peer.bias.detach(), atol=1e-5)
  np.testing.assert_allclose(
    [epoch.train_loss for epoch in tuned.history], losses, rtol=1e-5
  )


def test_learning_rate_factors_have_the_values_of_the_source_system():
  # 1 for three epochs, 0.1 + 0.45 (1 + cos(pi (e - 3) / 7)) to epoch 10.
  factors = [float(schedules.epoch_factor(e)) for e in range(13)]
  expected = [
    1.0,
    1.0,
    1.0,
    1.0,
    0.955436,
    0.830570,
    0.650134,
    0.449866,
    0.269430,
    0.144564,
    0.1,
    0.1,
    0.1,
  ]
  np.testing.assert_allclose(factors, expected, atol=1e-6)


def test_learning_rate_changes_between_epochs_and_not_within():
  optimizer = optimizers.create(
    'adamw', learning_rate=1.0, steps_per_epoch=2,
    schedule=schedules.Schedule(warmup_epochs=0, end_epoch=1),
  )
  params = jnp.zeros(())
  state, updates = optimizer.init(params), []
  for _ in range(6):
    update, state = optimizer.update(jnp.ones(()), state, params)
    updates.append(float(update))
  # A constant gradient moves Adam by the rate itself, up to epsilon.
  np.testing.assert_allclose(
    updates, [-1, -1, -0.1, -0.1, -0.1, -0.1], rtol=1e-4
  )


def test_epochs_that_cannot_be_are_refused():
  with pytest.raises(ValueError, match='got 3 and 3'):
    schedules.epoch_factor(0, warmup_epochs=3, end_epoch=3)
  with pytest.raises(ValueError, match='at least 1, got 0'):
    optimizers.create(
      'sgd', learning_rate=1.0, schedule=schedules.Schedule(), steps_per_epoch=0
    )
  with pytest.raises(ValueError, match='at least 1, got 0 and 32'):
    loop.Settings(num_epochs=0)


def test_evaluation_is_deterministic_and_leaves_the_state_untouched():
  before = {n: np.array(x) for n, x in states.flatten(_network()).items()}
  first, second = (
    loop.evaluate(
      _network(), VALIDATION, preprocess=GRAY, class_weights=np.ones(3)
    )
    for _ in range(2)
  )
  assert first == second
  for name, array in states.flatten(_network()).items():
    np.testing.assert_array_equal(array, before[name], err_msg=name)


@pytest.mark.parametrize('batch_size', [1, 4, 21, 64])
def test_prediction_does_not_depend_on_the_size_of_the_batches(batch_size):
  logits = loop.predict(
    _network(), VALIDATION.images, preprocess=GRAY, batch_size=batch_size
  )
  expected = _network()(GRAY(jnp.asarray(VALIDATION.images)))
  np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_a_set_smaller_than_a_batch_is_one_batch_and_every_image_is_seen():
  steps = []
  _fine_tune(
    num_epochs=2, batch_size=64, on_step=lambda *step: steps.append(step)
  )
  assert steps == [(0, 1, 1), (1, 1, 1)]
  steps.clear()
  _fine_tune(batch_size=500, on_step=lambda *step: steps.append(step))
  assert steps == [(0, 1, 1)]
  steps.clear()
  _fine_tune(batch_size=16, on_step=lambda *step: steps.append(step))
  assert steps == [(0, i + 1, 4) for i in range(4)]


def test_weighted_loss_equals_torchs():
  torch = pytest.importorskip('torch', reason='torch is the oracle here')
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(7, 4)).astype(np.float32)
  labels = np.array([0, 3, 1, 1, 2, 3, 3])
  # The class weights of the source system's first four classes.
  weights = np.array([0.50745985, 2.49261544, 0.7026614, 1.10335981])
  expected = torch.nn.CrossEntropyLoss(torch.tensor(weights).float())(
    torch.tensor(logits), torch.tensor(labels)
  ).item()
  numerator, denominator = jax.jit(losses.cross_entropy_sums)(
    logits, labels, jnp.asarray(weights)
  )
  np.testing.assert_allclose(numerator / denominator, expected, rtol=1e-6)
  np.testing.assert_allclose(
    metrics.weighted_cross_entropy(logits, labels, weights), expected, rtol=1e-6
  )


def test_balanced_weights_equal_those_of_the_source_system():
  # 26,666 training images of six classes and scikit-learn's weights for them.
  counts = [8758, 1783, 6325, 4028, 2953, 2819]
  weights = metrics.balanced_class_weights(np.repeat(np.arange(6), counts), 6)
  expected = (
    0.50745985,
    2.49261544,
    0.7026614,
    1.10335981,
    1.50502314,
    1.57656379,
  )
  np.testing.assert_allclose(weights, expected, rtol=1e-6)


def test_a_class_without_images_has_weight_zero():
  weights = metrics.balanced_class_weights(np.array([0, 0, 0, 2]), 3)
  # Four images of two classes: 4 / (2 * 3) and 4 / (2 * 1).
  np.testing.assert_allclose(weights, [2 / 3, 0, 2])


def test_scores_equal_those_computed_by_hand():
  labels = np.array([0, 0, 0, 0, 1, 1, 2, 2, 2, 2])
  answers = np.array([0, 0, 0, 1, 1, 2, 2, 2, 2, 0])
  confusion = metrics.confusion_matrix(labels, answers, 4)
  np.testing.assert_array_equal(
    confusion, [[3, 1, 0, 0], [0, 1, 1, 0], [1, 0, 3, 0], [0, 0, 0, 0]]
  )
  scores = metrics.scores(confusion)
  np.testing.assert_allclose(scores.accuracy, 0.7)
  # Recalls 3/4, 1/2, 3/4; precisions 3/4, 1/2, 3/4; class 3 does not occur.
  np.testing.assert_allclose(scores.balanced_accuracy, 2 / 3)
  np.testing.assert_allclose(scores.precision, 2 / 3)
  np.testing.assert_allclose(scores.f1, 2 / 3)


def test_scores_of_one_sided_answers_equal_those_computed_by_hand():
  # Everything is called class 0; class 2 is called and occurs nowhere.
  scores = metrics.scores([[3, 0, 0], [1, 0, 0], [0, 0, 0]])
  np.testing.assert_allclose(scores.accuracy, 3 / 4)
  np.testing.assert_allclose(scores.balanced_accuracy, 1 / 2)
  np.testing.assert_allclose(scores.precision, 3 / 8)
  np.testing.assert_allclose(scores.recall, 1 / 2)
  np.testing.assert_allclose(scores.f1, (6 / 7) / 2)


def test_a_class_that_is_answered_but_never_occurs_counts_as_zero():
  scores = metrics.scores([[1, 1], [0, 0]])
  np.testing.assert_allclose(scores.balanced_accuracy, 1 / 2)
  np.testing.assert_allclose(scores.recall, 1 / 4)
  np.testing.assert_allclose(scores.precision, 1 / 2)


def test_labels_out_of_range_are_refused():
  data = loop.LabelledImages(TRAIN.images, TRAIN.labels + 1)
  with pytest.raises(ValueError, match=r'in 0..2, got 1..3'):
    _fine_tune(train=data)
  with pytest.raises(ValueError, match='labels must be integers'):
    metrics.confusion_matrix(np.array([0.5]), np.array([0]), 2)


def test_sets_of_differing_lengths_and_empty_ones_are_refused():
  with pytest.raises(ValueError, match=r'\(70, 8, 8, 1\) and \(69,\)'):
    loop.LabelledImages(TRAIN.images, TRAIN.labels[1:])
  with pytest.raises(ValueError, match='at least one labelled image'):
    loop.LabelledImages(TRAIN.images[:0], TRAIN.labels[:0])


def test_class_weights_that_do_not_fit_are_refused():
  with pytest.raises(ValueError, match='must be .K,. and not negative'):
    _fine_tune(class_weights=np.array([1.0, -1.0, 1.0]))
  with pytest.raises(ValueError, match=r'shape \(3,\), one per logit'):
    _fine_tune(class_weights=np.ones(4))
  with pytest.raises(ValueError, match='must carry weight'):
    metrics.weighted_cross_entropy(
      np.zeros((2, 3)), np.array([0, 0]), np.array([0.0, 1.0, 1.0])
    )


def test_a_loss_that_is_no_number_is_reported_with_epoch_and_step():
  images = np.full_like(TRAIN.images, np.nan)
  with pytest.raises(FloatingPointError, match=r'training of epoch 0, step \d'):
    _fine_tune(train=loop.LabelledImages(images, TRAIN.labels))
  images = VALIDATION.images.copy()
  images[5] = np.nan
  with pytest.raises(FloatingPointError, match='validation of epoch 0'):
    _fine_tune(validation=loop.LabelledImages(images, VALIDATION.labels))


def test_history_is_ready_for_json():
  epoch = _fine_tune().history[0]
  fields = epoch.as_dict()
  assert fields['validation']['scores']['confusion'] == (
    epoch.validation.scores.confusion
  )


def test_constraint_holds_after_every_update_and_not_without_it():
  shape = (8, 8, 1)
  found = spectral.find_layers(_network(), shape, exclude=('fc',))
  constraint = spectral.projection(jax.random.key(1), found, 0.5)
  norms = []
  for one in (constraint, None):
    tuned = _fine_tune(num_epochs=3, constraint=one)
    params = nnx.state(tuned.last, nnx.Param)
    vectors = spectral.initial(jax.random.key(2), found)
    norms.append(float(
      spectral.norms(params, found, vectors, num_steps=300)[0][0]
    ))
  assert norms[0] < 0.55 < norms[1]
