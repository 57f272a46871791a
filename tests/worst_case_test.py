"""Worst cases: known maxima, random search, and the derivatives they need."""

import chaospy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsens import classifiers
from jaxsens import evaluation
from jaxsens import factors
from jaxsens import marginals
from jaxsens import quantities
from jaxsens import worst_case
from jaxsens.perturbations import chains
from jaxsens.perturbations import registry

KEY = jax.random.key(0)
SIZE = (12, 9)
CLASSES = ('a', 'b', 'c')


def make_space(*distributions):
  return factors.FactorSpace(tuple(
    factors.Factor(f'x{i}', distribution)
    for i, distribution in enumerate(distributions)
  ))


CUBE = make_space(
  chaospy.Uniform(-1, 1), chaospy.Uniform(0, 10), chaospy.Uniform(5, 6)
)


def search(objective, space=CUBE, nominal=(0, 5, 5.5), **options):
  arguments = {'num_starts': 4, 'num_steps': 30} | options
  key = arguments.pop('key', KEY)
  return worst_case.search(
    key, objective, space, nominal=nominal, **arguments
  )


def bowl(values):
  scaled = (values - jnp.array([0.3, 2.0, 5.9])) / jnp.array([1, 10, 1])
  return 3 - jnp.sum(jnp.array([1.0, 4.0, 0.3]) * scaled**2)


def test_maximum_inside_the_box_is_found():
  found = search(bowl, num_steps=60)
  np.testing.assert_allclose(found.objective, 3, atol=1e-4)
  np.testing.assert_allclose(found.values, [0.3, 2, 5.9], atol=0.05)
  np.testing.assert_allclose(found.nominal_objective, bowl(jnp.array(
    [0, 5, 5.5]
  )), rtol=1e-6)
  assert found.names == ('x0', 'x1', 'x2')


def test_maximum_in_a_corner_is_found_exactly():
  found = search(lambda values: values @ jnp.array([1.0, -0.01, 3.0]))
  np.testing.assert_array_equal(found.values, [1, 0, 6])


def test_limits_of_the_search_hold():
  found = search(bowl, lower=(-1, 4, 5.5), upper=(0.1, 6, 5.5))
  np.testing.assert_allclose(found.values, [0.1, 4, 5.5], atol=1e-3)
  assert np.all(found.starts >= [-1, 4, 5.5])
  assert np.all(found.starts <= [0.1, 6, 5.5])


def test_other_distributions_are_searched_in_their_germ():
  space = make_space(chaospy.LogUniform(0, 5), chaospy.Normal(10, 2))
  # Maximum at (e^3, 12); the limits are e^0 and e^5, and 10 -+ 2 2.5758.
  found = search(
    lambda v: -((jnp.log(v[0]) - 3) ** 2) - (v[1] - 12) ** 2 / 10,
    space, (2, 10), num_steps=60,
  )
  np.testing.assert_allclose(found.values, [np.exp(3), 12], rtol=0.02)
  corner = search(lambda v: jnp.log(v[0]) + v[1], space, (2, 10))
  np.testing.assert_allclose(corner.values, [np.exp(5), 15.1516586], rtol=1e-6)


def test_discrete_factors_keep_the_atoms_of_the_starts():
  space = make_space(marginals.Discrete([1, 2, 4]), chaospy.Uniform(0, 1))
  height = lambda v: jnp.where(v[0] == 4, 2.0, 0.0) - (v[1] - 0.7) ** 2
  found = search(height, space, (1, 0.1), num_starts=9, num_screened=9)
  assert set(found.starts[:, 0]) == {1, 2, 4}
  np.testing.assert_allclose(found.values, [4, 0.7], atol=0.02)


def hills(values):
  """Two hills; the higher one, of height 1, is far from the middle."""
  x = (values - jnp.array([0, 5, 5.5])) / jnp.array([1, 5, 0.5])
  high = jnp.exp(-20 * jnp.sum((x - 0.7) ** 2))
  return high + 0.4 * jnp.exp(-2 * jnp.sum(x**2))


def test_several_starts_find_the_higher_of_two_hills():
  assert search(hills, num_starts=1, num_screened=1).objective < 0.45
  # At the top of the high one: 1 + 0.4 exp(-2 * 3 * 0.7^2).
  np.testing.assert_allclose(
    search(hills, num_starts=32).objective, 1.0211, atol=0.001
  )


def random_best(objective, key, num_evaluations):
  points = jax.random.uniform(key, (num_evaluations, 3))
  values = jnp.array([-1, 0, 5]) + points * jnp.array([2, 10, 1])
  return float(jnp.max(jax.vmap(objective)(values)))


def waves(values):
  """Smooth, with several maxima, and a ridge across the axes."""
  x = (values - jnp.array([0, 5, 5.5])) / jnp.array([1, 5, 0.5])
  return (
    jnp.sin(4 * x[0] + 2 * x[1]) + jnp.cos(3 * x[1] * x[2]) + 0.5 * x[2]
    - 5 * (x[0] - x[2]) ** 2
  )


@pytest.mark.parametrize('objective', [bowl, waves])
def test_search_finds_more_than_random_search_of_the_same_cost(
  objective
):
  wins = 0
  for key in jax.random.split(KEY, 20):
    found = search(objective, key=key, num_starts=4, num_steps=15)
    cost = found.num_screened + 3 * found.num_gradients
    rival = random_best(objective, key, cost)
    wins += found.objective >= rival
  assert (found.num_screened, found.num_gradients) == (3 * 4 * 16, 4 * 16)
  # Chance would win 10 of 20; 5 standard errors above are 21, so nearly all.
  assert wins >= 19


def test_the_result_is_never_worse_than_the_best_screened_point():
  rough = lambda v: jnp.sin(300 * v[0]) + jnp.sin(40 * v[1]) + v[2]
  found = search(rough, num_starts=16, num_screened=100, num_steps=10)
  starts = jax.vmap(rough)(jnp.asarray(found.starts))
  assert np.all(np.diff(starts) <= 0)
  np.testing.assert_allclose(found.start_objective, starts[0], rtol=1e-5)
  np.testing.assert_allclose(found.history[0], found.start_objective, rtol=1e-5)
  assert np.all(np.diff(found.history) >= 0) and len(found.history) == 11
  assert found.history[-1] == found.objective > found.start_objective
  np.testing.assert_allclose(rough(jnp.asarray(found.values)), found.objective,
                             rtol=1e-5)
  still = search(rough, num_starts=16, num_steps=0)
  np.testing.assert_allclose(still.objective, still.start_objective, rtol=1e-5)


def test_screening_takes_the_worst_of_all_points():
  # More than one block, and a last one that is not full.
  every = search(hills, num_starts=150, num_screened=150, num_steps=0)
  some = search(hills, num_starts=5, num_screened=150, num_steps=0)
  heights = np.asarray(jax.vmap(hills)(jnp.asarray(every.starts)))
  assert np.all(np.diff(heights) <= 0)
  np.testing.assert_array_equal(some.starts, every.starts[:5])
  assert np.any(np.all(every.starts == [0, 5, 5.5], axis=1))
  assert len(np.unique(every.starts, axis=0)) == 150


def test_a_flat_objective_stays_at_the_nominal_point():
  found = search(lambda values: 0.0 * values[0] + 2.0)
  np.testing.assert_array_equal(found.values, [0, 5, 5.5])
  assert found.objective == found.nominal_objective == 2


def test_the_search_is_a_function_of_the_key():
  one, same = (search(hills, key=jax.random.key(3)) for _ in range(2))
  np.testing.assert_array_equal(one.values, same.values)
  other = search(hills, key=jax.random.key(4))
  assert np.max(np.abs(one.starts - other.starts)) > 0.01


def test_objectives_and_derivatives_that_are_not_finite_are_named():
  with pytest.raises(FloatingPointError, match="objective is nan at {'x0': 0"):
    search(lambda v: jnp.log(v[0] - 2))
  with pytest.raises(FloatingPointError, match=r"by \['x1'\] is not finite"):
    search(lambda v: v[0] + jnp.sqrt(jnp.abs(v[1] - 5)), num_starts=1,
           num_screened=1)


def test_bad_input_of_the_search_is_named():
  for options, message in [
    ({'nominal': (0, 5)}, r'nominal: .* got shape \(2,\)'),
    ({'nominal': (0, 11, 5.5)}, "factor 'x1': expected lower <= nominal"),
    ({'lower': (0.5, 0, 5)}, "factor 'x0'"),
    ({'upper': (1, 10, 7)}, "factor 'x2'"),
    ({'upper': (1, 10, np.nan)}, "factor 'x2'"),
    ({'num_starts': 0}, 'num_starts'),
    ({'num_steps': -1}, 'num_steps'),
    ({'num_starts': 4, 'num_screened': 3}, 'num_screened'),
  ]:
    with pytest.raises(ValueError, match=message):
      search(bowl, **options)


def apply_network(params, images):
  """Convolution, squashing, mean over the image in nine parts, logits."""
  x = jax.lax.conv_general_dilated(
    images, params['kernel'].astype(images.dtype), (1, 1), 'SAME',
    dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
  )
  x = jnp.tanh(x)
  parts = x.reshape(len(x), 3, 4, 3, 3, x.shape[3]).mean((2, 4))
  return parts.reshape(len(x), -1) @ params['head'].astype(images.dtype)


def make_classifier(seed=0):
  key_kernel, key_head = jax.random.split(jax.random.key(seed))
  params = {
    'kernel': 2 * jax.random.normal(key_kernel, (5, 5, 3, 6)),
    'head': jax.random.normal(key_head, (54, len(CLASSES))),
  }
  return classifiers.Classifier(
    apply_network, params, classifiers.Normalise((0.5,) * 3, (0.5,) * 3),
    CLASSES, SIZE, 3,
  )


def make_image(seed=0):
  """Waves in a picture of twice the size of the network's."""
  y, x = np.mgrid[:2 * SIZE[0], :2 * SIZE[1]][..., None]
  a, b, c = np.random.default_rng(seed).uniform(0, 0.7, (3, 3))
  return 0.5 + 0.4 * np.sin(a * x + b * y + 9 * c)


IMAGE_SPACE = factors.FactorSpace((
  factors.Factor('brightness', chaospy.Uniform(0.5, 1.5), 'factor'),
  factors.Factor('rotation', chaospy.Uniform(-60, 60), 'deg'),
  factors.Factor('translation_x', chaospy.Uniform(-0.4, 0.4)),
))


def test_objective_is_the_quantity_of_the_evaluation():
  classifier, image = make_classifier(), make_image()
  chain = chains.make_chain(IMAGE_SPACE, SIZE)
  signs = {'margin': -1, 'probability': -1, 'loss': 1, 'entropy': 1}
  evaluator = evaluation.make_evaluator(
    classifier, chain, quantities.make_quantities(tuple(signs), CLASSES),
    batching=evaluation.Batching(3, 3),
  )
  values = np.array([[1, 0, 0], [0.6, 40, -0.1], [1.4, -5, 0.3]])
  expected = evaluator(KEY, image, 1, values)
  objectives = [
    worst_case.make_objective(classifier, chain, image, 1, quantity)
    for quantity in signs
  ]
  found = jax.jit(jax.vmap(lambda v: jnp.stack([f(v) for f in objectives])))(
    jnp.asarray(values)
  )
  np.testing.assert_allclose(
    found, expected * list(signs.values()), rtol=1e-4, atol=1e-5
  )


def test_ascent_finds_a_larger_loss_of_a_network_than_random_search():
  chain = chains.make_chain(IMAGE_SPACE, SIZE)
  lower, upper = np.array([[0.5, -60, -0.4], [1.5, 60, 0.4]])
  evaluate = jax.jit(jax.vmap(lambda f, v: f(v), (None, 0)))
  wins, sizes = 0, set()
  for seed in range(8):
    objective = worst_case.make_objective(
      make_classifier(seed), chain, make_image(seed), seed % 3, 'loss'
    )
    found = worst_case.search(
      KEY, objective, IMAGE_SPACE, nominal=chain.identity,
      num_starts=4, num_steps=15,
    )
    cost = found.num_screened + 3 * found.num_gradients
    points = np.random.default_rng(seed).random((cost, 3))
    rivals = evaluate(objective, jnp.asarray(lower + points * (upper - lower)))
    wins += found.objective > float(jnp.max(rivals))
    sizes.add(worst_case._value_and_gradient._cache_size())
  assert wins >= 6
  # Networks, images and labels of one kind share a compiled program.
  assert len(sizes) == 1


def test_bad_input_of_the_objective_is_named():
  classifier, image = make_classifier(), make_image()
  chain = chains.make_chain(IMAGE_SPACE, SIZE)
  make = worst_case.make_objective
  with pytest.raises(ValueError, match="quantity.*'depth'"):
    make(classifier, chain, image, 0, 'depth')
  with pytest.raises(ValueError, match=r'image: expected shape \(H, W, 3\)'):
    make(classifier, chain, image[..., :1], 0)
  with pytest.raises(ValueError, match=r'pixels in \[0, 1\]'):
    make(classifier, chain, image * 255, 0)
  with pytest.raises(ValueError, match=r'pixels in \[0, 1\]'):
    make(classifier, chain, image * np.nan, 0)
  with pytest.raises(ValueError, match='label: 3'):
    make(classifier, chain, image, 3)


def test_chains_without_a_derivative_are_refused():
  classifier, image = make_classifier(), make_image()
  for options, message in [
    ({'convention': 'paper'}, '8 bits'),
    ({'method': 'nearest'}, r"\['rotation', 'translation_x'\]"),
  ]:
    chain = chains.make_chain(IMAGE_SPACE, SIZE, **options)
    with pytest.raises(ValueError, match=message):
      worst_case.make_objective(classifier, chain, image, 0)
  # Why: the derivative of what is refused is zero.
  space = factors.FactorSpace(IMAGE_SPACE.factors[:1])
  paper = chains.make_chain(space, SIZE, convention='paper')
  slopes = jax.jacfwd(lambda v: paper(image, v))(jnp.array([0.9]))
  np.testing.assert_array_equal(slopes, 0)


# Spatial ones are compared one by one in tests/perturbations.
@pytest.mark.parametrize('kind', ['pointwise', 'geometric'])
def test_derivatives_of_perturbations_equal_finite_differences(kind):
  every = [registry.get(name) for name in registry.names()]
  some = [p for p in every if p.kind == kind and p.differentiable]
  space = factors.FactorSpace(tuple(
    factors.Factor(p.name, chaospy.Uniform(*p.sensible_range)) for p in some
  ))
  chain = chains.make_chain(space, SIZE)
  widths = np.array([np.diff(p.sensible_range)[0] for p in some])
  around = np.random.default_rng(0).uniform(-0.08, 0.08, (4, len(some)))
  with jax.enable_x64(True):
    image = jnp.asarray(make_image(), jnp.float64)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(*SIZE, 3)))
    function = jax.jit(jax.vmap(jax.value_and_grad(
      lambda values: jnp.sum(weights * chain(image, values, KEY))
    )))
    points = np.array(chain.identity) + around * widths
    shifts = 1e-7 * np.diag(widths)
    nodes = np.stack([points[:, None] + s * shifts for s in (0, 1, -1)])
    found = function(jnp.asarray(nodes.reshape(-1, len(some))))
    heights, slopes = (np.asarray(x) for x in found)
    assert slopes.dtype == np.float64
    slopes = slopes.reshape(*nodes.shape[:3], -1)[0, :, 0]
    _, above, below = heights.reshape(nodes.shape[:3])
  expected = (above - below) / 2e-7
  scale = np.max(np.abs(expected), axis=0)
  assert np.all(scale > 1e-3), space.names
  np.testing.assert_allclose(
    slopes * widths / scale, expected / scale, atol=1e-5
  )


def test_derivatives_through_chain_and_network_equal_finite_differences():
  classifier, chain = make_classifier(), chains.make_chain(IMAGE_SPACE, SIZE)
  with jax.enable_x64(True):
    image = jnp.asarray(make_image(), jnp.float64)
    prepared = chain.prepare(image)

    @jax.jit
    @jax.value_and_grad
    def function(values):
      logits = classifier(chain.apply(prepared, values, KEY)[None])[0]
      return quantities.loss(logits, 1)[0]

    values = jnp.array([0.8, 21.3, -0.11])
    _, found = function(values)
    for d, step in enumerate([1e-7, 1e-5, 1e-7]):
      shift = jnp.zeros(3).at[d].set(step)
      difference = function(values + shift)[0] - function(values - shift)[0]
      np.testing.assert_allclose(found[d], difference / (2 * step), rtol=1e-4)
