"""Kernels are sure on the data and nowhere else; a softmax is everywhere."""

import pathlib
import tempfile

from absl.testing import absltest
from PIL import Image

from experiments import two_moons


class TwoMoonsTest(absltest.TestCase):

  def test_certainty_falls_away_from_the_data_where_the_softmax_stays(self):
    workdir = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    found = two_moons.run(workdir)
    kernels, softmax = found['Kernels (DUQ)'], found['Softmax']
    for one in (kernels, softmax):
      self.assertGreater(one['accuracy'], 0.99)
    self.assertGreater(kernels['certainty on the data'], 0.75)
    self.assertLess(kernels['certainty far away'], 0.15)
    self.assertLess(kernels['share of the far plane above 0.9'], 0.02)
    self.assertGreater(softmax['certainty far away'], 0.95)
    with Image.open(workdir / 'two_moons.png') as figure:
      self.assertGreater(figure.width, 1000)
