"""The gPC benchmark: its methods against closed forms, its rows, its tables."""

import dataclasses
import json
import pathlib
import tempfile

from absl.testing import absltest
from absl.testing import parameterized
import chaospy
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import benchmark
from experiments.benchmarks import coverage
from experiments.benchmarks import gpc_functions
from experiments.benchmarks import gpc_studies
from experiments.benchmarks import gpc_suite
from experiments.benchmarks import image_methods
from experiments.benchmarks import index_peers
from experiments.benchmarks import network_runs
from experiments.benchmarks import studies
from experiments.benchmarks import tables
from jaxsens import classifiers
from jaxsens import factors
from jaxsens.data import image_sets
from jaxsens.gpc import designs

_SPACE = factors.FactorSpace((
  factors.Factor('brightness', chaospy.Uniform(0, 2)),
  factors.Factor('rotation', chaospy.Uniform(-90, 90)),
  factors.Factor('keystone', chaospy.Uniform(-20, 20)),
))
_GRID = {'brightness': 16, 'rotation': 24, 'keystone': 8}
_ISHIGAMI, _SOBOL_G, _BOREHOLE, _ = coverage.problems()


def _ignore(line):
  del line


def _folder(test):
  folder = tempfile.TemporaryDirectory()
  test.addCleanup(folder.cleanup)
  return folder.name


def _problem():
  """Returns y = x0 + 2 x1 x2, x uniform on [-1, 1]: V = 1/3 + 4/9."""
  return coverage.Problem(
    'small', _ISHIGAMI.space,
    lambda germ: (germ[:, :1] + 2 * germ[:, 1:2] * germ[:, 2:]),
    lambda: {
      (0,): 3 / 7, (1,): 0.0, (2,): 0.0,
      (0, -1): 3 / 7, (1, -1): 4 / 7, (2, -1): 4 / 7,
    },
    np.zeros((1, 3)), 0,
  )


def _two_means(params, images):
  """Logits: five times the mean of the image, and of its upper left corner."""
  del params
  return 5 * jnp.stack(
    [images.mean((1, 2, 3)), images[:, :8, :8].mean((1, 2, 3))], axis=1
  )


def _study(num_images=2):
  x, y = np.meshgrid(np.arange(16) / 16, np.arange(16) / 16)
  pictures = [(x * (y + i) / (1 + i))[..., None] for i in range(num_images)]
  images = image_sets.ImageSet(
    images=np.array(pictures, np.float32),
    labels=np.arange(num_images) % 2,
    names=tuple(f'image-{i}' for i in range(num_images)),
    class_names=('mean', 'corner'),
    groups=tuple(map(str, range(num_images))),
    description='slopes',
  )
  classifier = classifiers.Classifier(
    _two_means, {'unused': jnp.zeros(1)}, classifiers.identity,
    images.class_names, (16, 16), 1,
  )
  return studies.make_study(
    'slopes', classifier, images, _SPACE, batch_size=16, digest='network'
  )


@dataclasses.dataclass
class _Polynomial:
  """Stands for `Runs`: log-odds are given polynomials of the germ."""

  study: studies.Study

  def logits(self, image, nodes):
    del image
    x, y, z = nodes.T
    logit = 2 * x - x * y + 0.5 * z**2
    return np.stack([logit, 0 * logit], axis=1)

  def probability(self, image, nodes):
    return studies.probability(self.logits(image, nodes), 0)

  def truth(self):
    sizes = (40, 40, 40)
    design = designs.tensor_gauss(_SPACE, sizes)
    weights = [np.polynomial.legendre.leggauss(n)[1] / 2 for n in sizes]
    values = self.probability(0, design.nodes).reshape(sizes)
    found = studies.grid_indices(values, weights, _SPACE.names)
    return found.first_order, found.total


class PeersTest(parameterized.TestCase):

  @parameterized.parameters(
    ('chaospy_regression', 64, 1e-9), ('salib_saltelli', 20_000, 0.03),
    ('pygpc_static', 64, 1e-9),
  )
  def test_peer_finds_the_indices_of_a_polynomial(self, name, size, atol):
    if 'chaospy' not in name:
      pytest.importorskip('SALib' if 'salib' in name else 'pygpc')
    problem = _problem()
    first, total, runs = getattr(index_peers, name)(problem, size, 0)
    expected = gpc_functions.true_indices(problem)
    np.testing.assert_allclose(first, expected[0], atol=atol)
    np.testing.assert_allclose(total, expected[1], atol=atol)
    self.assertGreaterEqual(runs, size)

  def test_saltelli_takes_the_next_power_of_two(self):
    pytest.importorskip('SALib')
    _, _, runs = index_peers.salib_saltelli(_SOBOL_G, 64, 0)
    self.assertEqual(runs, 8 * 10)

  def test_degree_leaves_two_nodes_per_term(self):
    # binomial(3 + 4, 3) = 35 and binomial(3 + 5, 3) = 56 terms.
    self.assertEqual(index_peers.total_degree_for(3, 111), 4)
    self.assertEqual(index_peers.total_degree_for(3, 112), 5)
    self.assertEqual(index_peers.total_degree_for(8, 4), 1)

  def test_missing_peer_is_said_and_left_out(self):
    lines = []
    self.assertFalse(index_peers.installed('no_such_peer', lines.append))
    self.assertIn('no_such_peer is left out', lines[0])


class FunctionsTest(absltest.TestCase):

  def test_true_indices_are_the_published_ones(self):
    first, total = gpc_functions.true_indices(_ISHIGAMI)
    # Closed form, to the digits of Saltelli et al. 2000, section 2.9.
    np.testing.assert_allclose(first, [0.3139, 0.4424, 0], atol=1e-4)
    np.testing.assert_allclose(total, [0.5576, 0.4424, 0.2437], atol=1e-4)

  def test_cut_rounds_share_one_sequence_of_nodes(self):
    problem = _problem()
    small, large = gpc_functions.rounds(
      jax.random.key(0), lambda _, nodes: problem.function(nodes),
      problem.space, [lambda outputs: outputs], (16, 32),
    )
    np.testing.assert_array_equal(
      large.answers[0].nodes[:16], small.answers[0].nodes
    )
    self.assertEqual(large.answers[0].num_evaluations, 32)
    indices = large.answers[0].inference.indices
    error = gpc_functions.largest_error(
      indices.first_order, indices.total, gpc_functions.true_indices(problem)
    )
    self.assertLess(error, 1e-6)

  def test_first_size_is_the_one_from_which_all_are_below(self):
    rows = [
      {'runs': n, 'worst error': e, 'seeds': 1}
      for n, e in ((32, 0.005), (64, 0.02), (128, 0.009), (256, 0.001))
    ]
    *passed, last = gpc_functions._first_below('engine', rows)
    self.assertEqual(passed, rows)
    self.assertEqual(last['runs'], 128)
    *_, last = gpc_functions._first_below('engine', rows[:2])
    self.assertNotIn('runs', last)
    self.assertEqual(last['worst error'], 0.02)


class ImageMethodsTest(parameterized.TestCase):

  def setUp(self):
    super().setUp()
    self.runs = _Polynomial(_study())
    self.expected = self.runs.truth()

  def error(self, found):
    return gpc_functions.largest_error(*found, self.expected)

  def test_pushed_logits_are_exact_where_the_grid_resolves_them(self):
    found = image_methods.gauss(self.runs, 0, (2, 2, 3), pushed=True)
    self.assertLess(self.error(found), 1e-9)
    direct = image_methods.gauss(self.runs, 0, (2, 2, 3), pushed=False)
    self.assertGreater(self.error(direct), 1e-3)

  def test_direct_gauss_converges(self):
    found = image_methods.gauss(self.runs, 0, (16, 12, 12), pushed=False)
    self.assertLess(self.error(found), 1e-6)

  def test_recipe_converges_for_a_smooth_probability(self):
    (found,) = image_methods.recipe(jax.random.key(0), self.runs, [0], 1500)
    self.assertLess(self.error(found), 2e-3)

  @parameterized.parameters(False, True)
  def test_gaussian_process_comes_near(self, log_odds):
    found = image_methods.gaussian_process(
      jax.random.key(0), self.runs, 0, 64, log_odds=log_odds
    )
    self.assertLess(self.error(found), 0.01)

  def test_pick_freeze_stays_within_the_runs(self):
    found, num_runs = image_methods.frozen(
      jax.random.key(0), self.runs, 0, 5004
    )
    self.assertEqual(num_runs, 5000)
    self.assertLess(self.error(found), 0.03)


class NetworkTest(absltest.TestCase):

  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(_folder(self))
    self.study = _study()
    self.runs = network_runs.Runs(self.study, self.places().folder)
    self.nodes = designs.sobol_sequence(
      jax.random.key(1), _SPACE, 32
    ).nodes

  def places(self, compute=True):
    path = self.folder
    return gpc_studies.Places(path, path / 'truths', path, compute)

  def test_grown_design_runs_its_new_nodes_alone(self):
    expected = self.study.evaluate(1, _SPACE.to_values(self.nodes))
    first = self.runs.logits(1, self.nodes[:20])
    asked = []

    def spy(*args, **options):
      asked.append(len(args[3]))
      return self.study.evaluator(*args, **options)

    runs = network_runs.Runs(
      dataclasses.replace(self.study, evaluator=spy), self.runs.folder
    )
    both = runs.logits(1, self.nodes)
    self.assertEqual(asked, [12])
    np.testing.assert_allclose(first, expected[:20], rtol=1e-5)
    np.testing.assert_allclose(both, expected, rtol=1e-5)
    np.testing.assert_array_equal(runs.logits(1, self.nodes[:9]), both[:9])
    self.assertEqual(asked, [12])
    runs.logits(0, self.nodes[:9])
    self.assertEqual(asked, [12, 9])
    self.assertGreater(sum(runs.seconds.values()), 0)

  def test_other_design_with_the_same_first_nodes_is_run_anew(self):
    self.runs.logits(0, self.nodes)
    other = np.concatenate([self.nodes[:10], -self.nodes[10:]])
    np.testing.assert_allclose(
      self.runs.logits(0, other),
      self.study.evaluate(0, _SPACE.to_values(other)), rtol=1e-5,
    )

  def test_transform_is_the_softmax(self):
    logits = np.array([[[0.0, np.log(3.0)], [1000.0, 0.0], [-1000.0, 0.0]]])
    np.testing.assert_allclose(
      network_runs.transform(0)(logits), [[[0.25], [1.0], [0.0]]], atol=1e-12
    )

  def test_only_truths_on_disk_are_used_unless_computed(self):
    lines = []

    def find(study, i, folder):
      return studies.truth(study, i, _GRID, folder=folder)

    find(self.study, 1, self.places().truths)
    for compute, there in ((False, [1]), (True, [0, 1])):
      found = gpc_studies._truths(
        lines.append, self.places(compute), self.study, find
      )
      self.assertEqual(list(found), there)
    self.assertLen(lines, 1)
    self.assertIn('no truth of image 0', lines[0])

  def test_engine_beats_the_recipe_and_its_share_is_one_of_both(self):
    truths = {
      i: studies.truth(self.study, i, _GRID, folder=self.places().truths)
      for i in range(2)
    }
    *rows, ratio = gpc_studies._race_with_recipe(
      _ignore, self.runs, truths, (16, 32), 1, 400
    )
    self.assertEqual(
      [row['row'] for row in rows],
      ['engine, 16', 'engine, 32', 'pick-freeze, 15', 'pick-freeze, 30',
       "the source system's recipe, 400"],
    )  # fmt: skip
    engine = rows[1]
    self.assertLess(engine['worst error of 2'], 0.1)
    self.assertBetween(engine['covered'], 0, 1)
    np.testing.assert_allclose(
      engine["engine's share"],
      engine['engine seconds']
      / (engine['engine seconds'] + engine['network seconds']),
    )
    self.assertGreater(ratio['ratio of runs'], 400 / 33)
    self.assertIn('median error of 1', rows[-1])


class TablesTest(absltest.TestCase):

  def test_rows_are_on_disk_before_the_section_ends(self):
    folder = pathlib.Path(_folder(self))

    def rows():
      yield {'table': 'a', 'row': 'engine, 2', 'runs': 2, 'error': 0.5}
      yield {'table': 'b', 'row': 'x', 'runs': 3, 'error': float('nan')}
      raise KeyboardInterrupt

    with self.assertRaises(KeyboardInterrupt):
      list(tables.record(folder, 'one', rows(), {}))
    found = tables.read(folder, ['none', 'one'])
    self.assertEqual(
      found['a'], {'runs': {'engine, 2': 2}, 'error': {'engine, 2': 0.5}}
    )
    self.assertTrue(np.isnan(found['b']['error']['x']))
    self.assertEqual(found['sections']['seconds'], {})
    self.assertIn('one', found['sections']['load before'])

  def test_quick_suite_prints_tables_with_command_and_versions(self):
    folder = _folder(self)
    output = f'{folder}/report.json'
    report = benchmark.run(
      'gpc', quick=True, output=output, command='the command', log=_ignore,
      options={
        'workdir': folder, 'sections': ['functions', 'coverage', 'bootstrap'],
        'num_seeds': 1, 'num_resamples': 4,
      },
    )
    text = benchmark.markdown(report)
    for part in ('`the command`', '### ishigami', '| engine, 64 |',
                 '| chaospy regression, 32 |', 'bootstrap resamples', 'numpy'):
      self.assertIn(part, text)
    with open(output) as file:
      kept = json.load(file)
    self.assertEqual(kept['result'].keys(), report['result'].keys())
    # Sections measured before are in the tables of a later run.
    again = gpc_suite.run(_ignore, sections=[], workdir=folder)
    self.assertEqual(again['ishigami'], report['result']['ishigami'])

  def test_unknown_section_is_refused(self):
    with self.assertRaisesRegex(ValueError, "sections.*'banana'"):
      gpc_suite.run(_ignore, sections=['banana'])
    with self.assertRaisesRegex(ValueError, "functions.*'banana'"):
      gpc_suite.run(_ignore, functions=['banana'])


if __name__ == '__main__':
  absltest.main()
