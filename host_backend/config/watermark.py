"""`watermark`: where marks are kept, and how far one request may move one."""

from dataclasses import dataclass
from typing import Literal

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

    driver: Literal["file", "mem"] = "file"
    #: Levels by which one request may pass the stored mark.
    max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP
    #: Whether `file` may keep marks on a file system that is empty after a restart of the machine.
    allow_memory_file_system: bool = False


def parse_watermark(value: Value | None, warnings: list[str]) -> WatermarkConfig:
    """Return the section `watermark`.

    Raises:
        ConfigError: With file, line and dotted path of what is wrong.
    """
    fields = value.record(("driver", "config")) if value else {}
    driver: Literal["file", "mem"] = "file"
    if "driver" in fields and fields["driver"].choice(_DRIVERS) == "mem":
        driver = "mem"
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
    return WatermarkConfig(
        driver,
        DEFAULT_MAX_LEVEL_JUMP if jump is None else jump.integer(1, MAX_LEVEL),
        in_memory is not None and in_memory.boolean(),
    )
