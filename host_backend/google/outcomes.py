"""How a call of a Google service can end, other than well."""

from host_backend.errors import StoreUnavailable


class Contended(StoreUnavailable):
    """Others were writing the same documents: nothing was done; it may be tried again at once."""


class Conflict(StoreUnavailable):
    """A document or object was not as the condition has it: nothing was done; read it again."""


class OutcomeUnknown(StoreUnavailable):
    """No answer, or none that says whether it was done; read it back."""
