"""What passes without gradients show of a loop: in what mode they are made, and whether they were a validation."""

from __future__ import annotations


class Evaluations:
    """The mode in which a network is evaluated.

    Passes without gradients are a validation, or only a look, as at the accuracy of a batch: which of both shows once numbers of
    a validation are told. Where looks in training mode come oftener than those, nobody knows what such a pass was.
    """

    def __init__(self) -> None:
        self._in_training_mode: bool | None = None
        self._looked = False
        self._looks = self._validations = 0

    def passed(self, *, training: bool) -> None:
        """A pass without gradients was made in training mode, or was not."""
        self._in_training_mode = training and self._in_training_mode is not False
        self._looked = training

    def training_goes_on(self) -> None:
        """A training pass begins; a pass of which nothing was told was a look."""
        self._looks += self._looked
        self._looked = False

    def took(self, *, training: bool) -> None:
        """What was taken for training was the validation, and made in this mode."""
        self._in_training_mode = training

    def validated(self) -> float | None:
        """Numbers of a validation are told: 1 if all passes since the last ones were made in training mode, else 0.

        None where there were none, or nobody knows.
        """
        training, self._in_training_mode = self._in_training_mode, None
        self._looked, self._validations = False, self._validations + 1
        unclear = training and self._looks > self._validations
        return None if training is None or unclear else float(training)
