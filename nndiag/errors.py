"""What nndiag raises: one base class, and a subclass where a caller would catch it."""


class NndiagError(Exception):
    """Base of every error that nndiag raises on purpose; its text is meant for the user."""


class ShapeError(NndiagError, ValueError):
    """An array does not fit the layer, loss or recorder that it was given to."""


class RunError(NndiagError):
    """A run folder cannot be read or written."""


class WatchError(NndiagError, TypeError):
    """What was to be watched is nothing that trains, or came with an optimiser or a loss that is none, or that it has already."""


class UnknownName(NndiagError, ValueError):
    """A name (check, layer, format, initialiser, …) that nndiag does not know."""
