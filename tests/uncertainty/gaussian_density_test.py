import jax
import numpy as np
import pytest
from scipy import special
from scipy import stats
from sklearn import covariance
from sklearn import discriminant_analysis

from jaxsens.uncertainty import gaussian_density


def _data(count=60, dim=4, classes=3, seed=0):
  rng = np.random.default_rng(seed)
  labels = np.arange(count) % classes
  mixing = rng.normal(size=(classes, dim, dim))
  noise = np.einsum('nij,nj->ni', mixing[labels], rng.normal(size=(count, dim)))
  return noise + 3 * rng.normal(size=(classes, dim))[labels], labels


@pytest.mark.parametrize('shared', [False, True])
@pytest.mark.parametrize('shrinkage', [0.0, 0.3])
def test_densities_equal_scipys(shared, shrinkage):
  features, labels = _data()
  new = _data(seed=1)[0]
  with jax.enable_x64(True):
    found = gaussian_density.fit(
      features, labels, 3, shrinkage=shrinkage, shared=shared
    )
    logs = found.log_density(new)
    score = found.score(new)
  expected = []
  pooled = sum(
    (np.sum(labels == k) - 1) * np.cov(features[labels == k].T)
    for k in range(3)
  ) / (len(labels) - 3)
  for k in range(3):
    part = features[labels == k]
    c = pooled if shared else np.cov(part.T)
    s = (1 - shrinkage) * c + shrinkage * np.trace(c) / 4 * np.eye(4)
    expected.append(stats.multivariate_normal(part.mean(0), s).logpdf(new))
  np.testing.assert_allclose(logs, np.array(expected).T, rtol=1e-8)
  shares = np.bincount(labels) / len(labels)
  np.testing.assert_allclose(
    score, special.logsumexp(np.array(expected).T, b=shares, axis=1), rtol=1e-8
  )


def test_shared_covariance_answers_as_linear_discriminant_analysis():
  features, labels = _data(count=90)
  new = _data(seed=1)[0]
  found = gaussian_density.fit(features, labels, 3, shrinkage=0.0, shared=True)
  logs = np.asarray(found.log_density(new)) + np.asarray(found.log_priors)
  lda = discriminant_analysis.LinearDiscriminantAnalysis(
    solver='lsqr'
  ).fit(features, labels)
  np.testing.assert_array_equal(logs.argmax(1), lda.predict(new))


def test_share_of_ledoit_and_wolf_equals_scikit_learns():
  features, labels = _data()
  found = gaussian_density.fit(features, labels, 3, shrinkage='ledoit_wolf')
  for k in range(3):
    part = features[labels == k]
    np.testing.assert_allclose(
      found.shrinkage[k], covariance.LedoitWolf().fit(part).shrinkage_,
      rtol=1e-6,
    )


def test_fewer_images_than_features_need_a_shrinkage():
  features, labels = _data(count=12, dim=10)
  for share in (0.0, 1e-16):
    with pytest.raises(np.linalg.LinAlgError, match='singular'):
      gaussian_density.fit(features, labels, 3, shrinkage=share)
  found = gaussian_density.fit(features, labels, 3, shrinkage=0.1)
  assert np.isfinite(found.score(features.astype(np.float32))).all()


def test_score_falls_with_the_distance_in_float32_under_jit():
  features, labels = _data()
  found = gaussian_density.fit(features, labels, 3, shrinkage=0.1)
  far = features[:1] + np.linspace(0, 1e3, 6)[:, None] ** 2
  score = jax.jit(lambda d, x: d.score(x))(found, far.astype(np.float32))
  assert score.dtype == np.float32
  assert (np.diff(score)[1:] < 0).all()
  near = found.nearness(far.astype(np.float32))
  np.testing.assert_allclose(
    near, -np.asarray(found.squared_distances(far)).min(1), rtol=1e-4
  )


def test_chosen_shrinkage_is_the_likeliest_of_held_out_features():
  features, labels = _data(count=30, dim=12)
  held_out = _data(count=30, dim=12, seed=0)[0] + 0.1
  shares = (0.0, 0.05, 0.3, 1.0)  # 0 is singular and drops out
  chosen = gaussian_density.choose_shrinkage(
    features, labels, 3, held_out, shrinkages=shares
  )
  likely = [
    float(np.mean(gaussian_density.fit(
      features, labels, 3, shrinkage=s).score(held_out)))
    for s in shares[1:]
  ]
  assert chosen == shares[1:][int(np.argmax(likely))]
  with pytest.raises(ValueError, match='no share'):
    gaussian_density.choose_shrinkage(
      features, labels, 3, held_out, shrinkages=(0.0,)
    )


@pytest.mark.parametrize('change, message', [
  (dict(features=np.full((60, 4), np.nan)), '60 of 60 images'),
  (dict(features=np.zeros(60)), r'\(N, D\)'),
  (dict(labels=np.full(60, 3)), r'0\.\.2'),
  (dict(labels=np.zeros(60, int)), 'at least two images'),
  (dict(shrinkage=1.5), r'\[0, 1\]'),
  (dict(shrinkage='oas'), 'ledoit_wolf'),
])
def test_bad_input_is_named(change, message):
  features, labels = _data()
  arguments = dict(features=features, labels=labels, shrinkage=0.1) | change
  with pytest.raises(ValueError, match=message):
    gaussian_density.fit(
      arguments['features'], arguments['labels'], 3,
      shrinkage=arguments['shrinkage'],
    )


def test_features_of_another_network_are_refused():
  found = gaussian_density.fit(*_data(), 3, shrinkage=0.1)
  with pytest.raises(ValueError, match=r'\(N, 4\)'):
    found.score(np.zeros((5, 3), np.float32))
