"""Quick compiles: these tests spend their time in XLA, not in the pictures."""

import pytest


@pytest.fixture(autouse=True, scope='module')
def _quick_compiles(quick_compiles):
  """Uses the fixture in every module of this folder."""
