"""The contract's one error family: something that reached us breaks what both sides agreed on."""


class ContractError(ValueError):
    """A value breaks the contract. The message says what was expected, what was got, what to do."""
