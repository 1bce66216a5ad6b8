"""The JSON Schema of devices.yaml, for editors; `python -m coordinator.devices_schema` writes it beside this module.

It says what `coordinator.config` accepts, setting by setting. What no schema can say (names that have to be listed
elsewhere, settings that do not go together) only the program checks.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coordinator import profiles
from coordinator.config import DevicesFile
from coordinator.hardware import PATTERN, REQUIRED

PACKAGED = Path(__file__).with_name("devices.schema.json")


def make() -> dict[str, Any]:
    """The schema, of draft 2020-12."""
    schema = DevicesFile.model_json_schema()
    settings = {"$ref": "#/$defs/ProfileSettings"}
    known = {name: one for name, one in profiles.built_in_settings().items() if not one.template}
    schema["properties"]["profiles"] |= {
        "properties": {name: {**settings, "description": one.title or name} for name, one in known.items()},
        "additionalProperties": settings
        | {"anyOf": [{"required": list(REQUIRED)}, {"required": ["extends"]}, {"required": ["template"]}]},
    }
    for name in ("profiles", "devices"):  # no name that does not match, instead of no check of those
        place = schema["properties"][name]
        values = next(iter(place.pop("patternProperties").values()))
        place.setdefault("additionalProperties", values)
        place["propertyNames"] = {"pattern": PATTERN}
    profile = schema["$defs"]["DeviceSettings"]["properties"]["profile"]
    profile["examples"] = list(known)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$comment": "made by python -m coordinator.devices_schema",
        **schema,
        "title": "hidenseek devices.yaml",
    }


def text() -> str:
    """The schema as a file."""
    return json.dumps(make(), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    PACKAGED.write_text(text(), encoding="utf-8")
