"""What looks into networks compiles large programs for small arrays."""

import pytest


@pytest.fixture(autouse=True, scope='module')
def _quick(quick_compiles):
  pass
