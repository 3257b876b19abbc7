"""Bodies that a service's OpenAPI document cannot tell how to make, for schemathesis."""

import hashlib
import os
from pathlib import Path

import schemathesis

DIRECTORY = Path(os.environ["SCHEMA_BODIES"])
CIPHERTEXT, KEYS = ((DIRECTORY / name).read_bytes() for name in ("ciphertext", "keys"))


@schemathesis.hook
def map_case(context, case):
    """Give what is to be valid the numbers of a ciphertext, and keys the name of their SHA-256."""
    if case.meta.generation.mode.is_positive:
        if case.operation.label == "POST /v1/predict":
            case.body = CIPHERTEXT
        elif "key_id" in (case.path_parameters or {}):
            case.path_parameters["key_id"] = hashlib.sha256(KEYS).hexdigest()
            if case.method == "PUT":
                case.body = KEYS
    return case
