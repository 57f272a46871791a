"""Which epoch is the best, and when to stop or to go back to it."""

QUANTITIES = ('loss', 'accuracy', 'macro_f1')


class Monitor:
  """Watches one measure of the validation over the epochs.

  It is a function of the values it was shown, so that a resumed training that
  shows it the history again decides as before.

  Attributes:
    quantity: one of `QUANTITIES`; the loss should fall, the others rise.
    early_limit: training stops once more epochs than that have passed without
      a new best; 0 never stops.
    replacement_limit: the network is replaced by the best once that many epochs
      have passed since the best or since the last replacement; 0 never.
    best_epoch: first epoch of the best value, None before any.
    num_epochs: values seen.
  """

  def __init__(
    self, quantity: str, early_limit: int = 0, replacement_limit: int = 0
  ):
    if quantity not in QUANTITIES:
      raise ValueError(f'monitor must be one of {QUANTITIES}, got {quantity!r}')
    if early_limit < 0 or replacement_limit < 0:
      raise ValueError(
        'early_limit and replacement_limit must not be negative, got '
        f'{early_limit} and {replacement_limit}.'
      )
    self.quantity = quantity
    self.early_limit = early_limit
    self.replacement_limit = replacement_limit
    self.best_epoch: int | None = None
    self.num_epochs = 0
    self._best_cost = float('inf')
    self._since_replacement = 0

  def observe(self, evaluation) -> bool:
    """Takes the evaluation of the next epoch; returns whether to replace.

    Args:
      evaluation: with `loss` and `scores`, see `scoring.Evaluation`.
    """
    cost = {
      'loss': evaluation.loss,
      'accuracy': -evaluation.scores.accuracy,
      'macro_f1': -evaluation.scores.f1,
    }[self.quantity]
    self.num_epochs += 1
    self._since_replacement += 1
    if self.best_epoch is None or cost < self._best_cost:
      self.best_epoch, self._best_cost = self.num_epochs - 1, cost
      self._since_replacement = 0
    replaces = (
      self.replacement_limit > 0
      and self._since_replacement >= self.replacement_limit
    )
    if replaces:
      self._since_replacement = 0
    return replaces

  @property
  def should_stop(self) -> bool:
    """Whether the best lies too many epochs behind."""
    if not self.early_limit or self.best_epoch is None:
      return False
    return self.num_epochs - 1 - self.best_epoch > self.early_limit
