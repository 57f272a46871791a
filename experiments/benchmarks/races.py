"""Contestants timed in turn, so that a busy machine slows all of them alike.

Each contestant does about the same seconds of work in each round; rounds follow
one another as A B C A B C. Ratios are medians of the ratios within a round and
do not suffer from a machine that is faster in one round than in the next.
"""

from collections.abc import Callable
from collections.abc import Mapping
from collections.abc import Sequence
import dataclasses
import statistics
import time
from typing import Any

Rates = dict[str, list[float]]


@dataclasses.dataclass(frozen=True)
class Contestant:
  """One way of evaluating nodes.

  Attributes:
    name: for tables; contestants of one race have different names.
    kind: what it is compared as, for instance 'engine'.
    dtype: 'float32' or 'bfloat16', of the network.
    num_nodes: nodes of one repetition.
    run: does a number of repetitions and returns when they are finished.
    batch_size: images that go through the network together.
  """

  name: str
  kind: str
  dtype: str
  num_nodes: int
  run: Callable[[int], Any]
  batch_size: int


def race(
  contestants: Sequence[Contestant],
  *,
  seconds: float,
  num_rounds: int,
  log: Callable[[str], Any],
) -> Rates:
  """Returns the nodes per second of every contestant in every round.

  Args:
    contestants: each runs twice unseen, to compile and to find out how many
      repetitions fill `seconds`.
    seconds: of work of each contestant in each round, about.
    num_rounds: rounds.
    log: receives a line per contestant and round.
  """
  repeats = {}
  for contestant in contestants:
    contestant.run(1)
    once = _seconds(contestant, 1)
    repeats[contestant.name] = max(1, round(seconds / once))
  rates = {contestant.name: [] for contestant in contestants}
  for i in range(num_rounds):
    for contestant in contestants:
      repeat = repeats[contestant.name]
      rate = repeat * contestant.num_nodes / _seconds(contestant, repeat)
      rates[contestant.name].append(rate)
      log(f'round {i + 1} of {num_rounds}: {contestant.name}: '
          f'{rate:.1f} nodes/s')  # fmt: skip
  return rates


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
  """Returns the median over rounds of above[i] / below[i]."""
  return statistics.median(
    a / b for a, b in zip(above, below, strict=True)
  )


def fastest(rates: Mapping[str, Sequence[float]]) -> list[float] | None:
  """Returns the highest rate of each round; None without contestants."""
  if not rates:
    return None
  return [max(of_round) for of_round in zip(*rates.values(), strict=True)]


def _seconds(contestant: Contestant, repeats: int) -> float:
  start = time.perf_counter()
  contestant.run(repeats)
  return time.perf_counter() - start
