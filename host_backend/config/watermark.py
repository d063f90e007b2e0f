"""`watermark`: where marks are kept, and how far one request may move one."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from host_backend.config.firestore import FIELDS as FIRESTORE_FIELDS
from host_backend.config.firestore import parse_place
from host_backend.config.mark_storage import MarksInFile, MarksInFirestore, MarksInMemory, MarkStorage
from host_backend.config.vaults import NOT_YET
from host_backend.watermark.rule import DEFAULT_MAX_LEVEL_JUMP, MAX_LEVEL
from host_backend.yaml_document import Value, given

MARK_COLLECTION = "watermark"
#: What Signatory's other driver is configured by.
_OF_AWS = ("access_key_id", "region", "secret_access_key", "session_token")
_OWN = ("max_level_jump", "allow_memory_file_system")
#: What each driver reads; the others read none of it, nor does Signatory's.
_FIELDS = {
    MarksInFile.driver: _OWN,
    MarksInMemory.driver: ("max_level_jump",),
    MarksInFirestore.driver: ("max_level_jump", *FIRESTORE_FIELDS),
}
_DRIVERS = {**dict.fromkeys(_FIELDS, ""), "aws": NOT_YET}


@dataclass(frozen=True, slots=True)
class WatermarkConfig:
    """Where marks are kept."""

    storage: MarkStorage = field(default_factory=MarksInFile)
    #: Levels by which one request may pass the stored mark.
    max_level_jump: int = DEFAULT_MAX_LEVEL_JUMP


def parse_watermark(value: Value | None, warnings: list[str]) -> WatermarkConfig:
    """Return the section `watermark`.

    Raises:
        ConfigError: With file, line and dotted path of each fault.
    """
    fields = value.record(("driver", "config")) if value else {}
    named = given(fields, "driver")
    driver = MarksInFile.driver if named is None else named.choice(_DRIVERS)
    # Some of the other drivers' fields are secrets.
    config = fields["config"].secretive() if "config" in fields else None
    settings = config.record((*_OWN, *FIRESTORE_FIELDS, *_OF_AWS)) if config else {}
    warnings += [
        f"{setting.path}: belongs to another driver, means nothing"
        for name, setting in settings.items()
        if name not in (*_OWN, *_FIELDS[driver])
    ]
    jump = given(settings, "max_level_jump")
    return WatermarkConfig(
        _storage(driver, config or value, settings, warnings),
        DEFAULT_MAX_LEVEL_JUMP if jump is None else jump.integer(1, MAX_LEVEL),
    )


def _storage(driver: str, place: Value | None, settings: Mapping[str, Value], warnings: list[str]) -> MarkStorage:
    in_memory = settings.get("allow_memory_file_system")
    allowed = in_memory is not None and in_memory.boolean()
    if driver == MarksInMemory.driver:
        return MarksInMemory()
    if driver == MarksInFirestore.driver and place is not None:
        return MarksInFirestore(parse_place(place, settings, MARK_COLLECTION, warnings))
    return MarksInFile(allowed)
