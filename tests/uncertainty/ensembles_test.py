import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens.models import registry
from jaxsens.training import checkpoints
from jaxsens.uncertainty import ensembles
from jaxsens.uncertainty import scores

_IMAGES = np.random.default_rng(0).normal(size=(3, 32, 32, 1)).astype('float32')


def _lenet(seed):
  return registry.create('lenet', jax.random.key(seed), 4, in_channels=1)


def _metadata(**changes):
  fields = dict(
    architecture='lenet', class_names=('a', 'b', 'c', 'd'), image_size=(32, 32),
    channels=1, mean=(0.5,), std=(0.5,), data='', config_hash='', metrics={},
  )
  return checkpoints.Metadata(**(fields | changes))


@pytest.mark.parametrize('mapping', ['vmap', 'map'])
def test_ensemble_answers_as_its_members_do(mapping):
  models = [_lenet(seed) for seed in range(3)]
  ensemble = ensembles.stack(models, mapping=mapping)
  logits = jax.jit(lambda e, x: e(x))(ensemble, _IMAGES)
  assert len(ensemble) == 3 and logits.shape == (3, 3, 4)
  for i, model in enumerate(models):
    np.testing.assert_allclose(logits[i], model(_IMAGES), atol=1e-5)
    np.testing.assert_array_equal(ensemble.member(i)(_IMAGES), model(_IMAGES))
  p = np.mean([jax.nn.softmax(model(_IMAGES)) for model in models], axis=0)
  np.testing.assert_allclose(
    np.exp(scores.of_samples(logits).log_probabilities), p, atol=1e-5
  )


def test_checkpoints_of_several_seeds_are_restored(tmp_path):
  models = [_lenet(seed) for seed in range(2)]
  paths = [tmp_path / f'seed_{i}' / 'checkpoint' for i in range(2)]
  for path, model in zip(paths, models, strict=True):
    checkpoints.save(path, model, _metadata(config_hash=path.parent.name))
  ensemble, metadata = ensembles.restore(
    paths, _lenet(5), expected={'architecture': 'lenet'}
  )
  assert [m.config_hash for m in metadata] == ['seed_0', 'seed_1']
  np.testing.assert_array_equal(
    ensemble.member(1)(_IMAGES), models[1](_IMAGES)
  )
  checkpoints.save(paths[1], models[1], _metadata(mean=(0.4,)))
  with pytest.raises(ValueError, match='mean'):
    ensembles.restore(paths, _lenet(5), expected={})


def _dropping():
  """A network with batch norms whose running moments are not the first."""
  model = registry.create(
    'shufflenet_v2_x1_0', jax.random.key(0), 4, in_channels=1, dropout=0.5
  )
  model.conv1[1].mean[...] = 0.1 * jnp.ones_like(model.conv1[1].mean[...])
  return model


def test_masks_leave_the_batch_norms_in_inference_and_average_to_the_logits():
  model = _dropping()
  found = ensembles.with_dropout(model, (32, 32, 1))
  ask = jax.jit(lambda d, k, x: d(k, x, 400))
  logits = ask(found, jax.random.key(1), _IMAGES)
  answers = jax.jit(lambda m, x: m(x))(model, _IMAGES)
  # Dropout before a linear head: the mean over masks is the answer without.
  error = 5 * np.std(logits, axis=0) / np.sqrt(400)
  assert (np.abs(np.mean(logits, axis=0) - answers) < error + 1e-4).all()
  assert (np.std(logits, axis=0) > 0).all()
  # An image's answers do not depend on its batch, as moments of it would make.
  others = np.concatenate([_IMAGES[:1], 5 * _IMAGES[1:]])
  np.testing.assert_allclose(
    ask(found, jax.random.key(1), others)[:, 0], logits[:, 0], atol=1e-4
  )


def test_masks_are_those_of_the_key():
  found = ensembles.with_dropout(_dropping(), (32, 32, 1))
  ask = jax.jit(lambda k: found(k, _IMAGES, 3))
  first, again, other = (ask(jax.random.key(i)) for i in (0, 0, 1))
  np.testing.assert_array_equal(first, again)
  assert np.abs(first - other).min() > 0
  assert np.abs(first[0] - first[1]).min() > 0


def test_what_lies_before_the_masks_is_computed_once():
  found = ensembles.with_dropout(_dropping(), (32, 32, 1))
  cost = lambda samples: jax.jit(
    lambda k, x: found(k, x, samples)
  ).lower(jax.random.key(0), _IMAGES).cost_analysis()['flops']
  assert cost(20) < 1.2 * cost(1)


@pytest.mark.parametrize('call, message', [
  (lambda: ensembles.stack([]), 'at least one'),
  (lambda: ensembles.stack([_lenet(0), registry.create(
    'lenet', jax.random.key(0), 5, in_channels=1)]), 'number 1'),
  (lambda: ensembles.stack([_lenet(0)], mapping='loop'), "'vmap' or 'map'"),
  (lambda: ensembles.with_dropout(_lenet(0), (32, 32, 1)), 'no dropout'),
  (lambda: ensembles.with_dropout(_dropping(), (32, 32, 1))(
    jax.random.key(0), _IMAGES, 0), 'num_samples'),
])
def test_bad_input_is_named(call, message):
  with pytest.raises(ValueError, match=message):
    call()
