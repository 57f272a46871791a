"""Expansions of polynomials without error, and one of known moments."""

import chaospy
import numpy as np

from jaxsens.gpc import designs
from jaxsens.gpc import expansions
from jaxsens.gpc import multi_indices
from tests.oracles import test_functions

NORMALS = test_functions.space_of(
  a=chaospy.Normal(1, 2), b=chaospy.Normal(0, 3), c=chaospy.Normal(-1, 1)
)
# Standard deviations of the two columns of `linear` over NORMALS; the means
# are 1 + 1 and 0.5 - 1.
MEANS, DEVIATIONS = np.array([2.0, -0.5]), np.sqrt([4 + 36 + 1, 1 + 1])


def linear(values):
  return values @ np.array([[1.0, 0.5], [2.0, 0.0], [-1.0, 1.0]])


def projected(function, space, num_nodes):
  """Expansion of a polynomial of the values below degree num_nodes."""
  design = designs.tensor_gauss(space, num_nodes)
  basis = expansions.Basis(
    space, multi_indices.tensor_product([n - 1 for n in num_nodes])
  )
  return expansions.project(
    basis, design, function(space.to_values(design.nodes))
  )


def linear_of_normals():
  """The expansion of `linear` over NORMALS."""
  return projected(linear, NORMALS, (2, 2, 2))
