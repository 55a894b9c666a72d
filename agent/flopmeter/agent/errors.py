"""The agent's error family. Each carries a hint: what an operator can do about it."""


class AgentError(Exception):
    """Something the agent cannot do. `str()` says what was expected and got; `hint` what to do."""

    exit_code = 3

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class SourceError(AgentError):
    """A source cannot be opened at all (no driver, no exporter, not a trace)."""


class ReadingError(AgentError):
    """One reading of one entity failed; `code` is NVML's error name or our own. Becomes a gap."""

    def __init__(self, code: str, message: str = "") -> None:
        super().__init__(message or code)
        self.code = code


class TraceError(SourceError):
    """A trace line breaks docs/trace-format.md; the message names the line."""


class SpoolError(AgentError):
    """The spool cannot be opened or written: in use, no space, damaged."""


class SpoolFullError(SpoolError):
    """No room: the spool's size limit is reached or its disk is full. Nothing was kept; it may pass."""


class KubernetesError(AgentError):
    """The kubelet or the API server cannot be asked, or said what cannot be used. It is asked again."""


class NotGrantedError(KubernetesError):
    """The API server refuses it to us, or has no such thing: asking soon again cannot help."""


class SettingsError(AgentError):
    """A setting is unknown or out of range."""

    exit_code = 2
