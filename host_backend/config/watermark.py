"""`watermark`: where marks are kept, and how far one request may move one."""

from dataclasses import dataclass, field

from host_backend.config.storage import MarksInFile, MarksInMemory, MarkStorage
from host_backend.config.vaults import NOT_YET
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP, MAX_LEVEL
from host_backend.yaml_document import Value

#: What Signatory's other drivers are configured by; its `file` and `mem` read none of it.
_OF_OTHER_DRIVERS = (
    "access_key_id",
    "application_credentials",
    "application_credentials_data",
    "collection",
    "database",
    "project",
    "region",
    "secret_access_key",
    "session_token",
    "table",
)
_DRIVERS = {"file": "", "mem": "", "gcp": NOT_YET, "aws": NOT_YET}


@dataclass(frozen=True, slots=True)
class WatermarkConfig:
    """Where marks are kept."""

    storage: MarkStorage = field(default_factory=MarksInFile)
    #: Levels by which one request may pass the stored mark.
    max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP


def parse_watermark(value: Value | None, warnings: list[str]) -> WatermarkConfig:
    """Return the section `watermark`.

    Raises:
        ConfigError: With file, line and dotted path of what is wrong.
    """
    fields = value.record(("driver", "config")) if value else {}
    driver = fields["driver"].choice(_DRIVERS) if "driver" in fields else MarksInFile.driver
    # Some of the other drivers' fields are secrets.
    config = fields["config"].secretive() if "config" in fields else None
    settings = config.record(("max_level_jump", "allow_memory_file_system", *_OF_OTHER_DRIVERS)) if config else {}
    warnings += [
        f"{settings[name].path}: belongs to another driver, means nothing"
        for name in _OF_OTHER_DRIVERS
        if name in settings
    ]
    jump = settings.get("max_level_jump")
    in_memory = settings.get("allow_memory_file_system")
    allowed = in_memory is not None and in_memory.boolean()
    return WatermarkConfig(
        MarksInMemory() if driver == MarksInMemory.driver else MarksInFile(allowed),
        DEFAULT_MAX_LEVEL_JUMP if jump is None else jump.integer(1, MAX_LEVEL),
    )
