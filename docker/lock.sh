#!/usr/bin/env bash
# Write anew what the server's image installs: constraints.txt, with checksums, and sbom.json, a
# software bill of materials (CycloneDX). Needs uv and cyclonedx-py, and Python 3.11 as the image has.
set -euo pipefail
cd "$(dirname "$0")"

pin() { uv pip compile --quiet --no-config --generate-hashes --no-header --no-annotate \
  --python-version 3.11 --python-platform x86_64-manylinux_2_28 "$@"; }

{
  echo "# Written by docker/lock.sh. Install it with pip's --no-deps and --require-hashes."
  pin requirements.txt
  # Its metadata asks for torch, which a server does not use.
  echo 'concrete-python>=2.11,<3' | pin --no-deps -
} >constraints.new
mv constraints.new constraints.txt

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
uv venv --quiet --no-config --python 3.11 "$folder"
uv pip install --quiet --no-config --python "$folder" --no-deps --require-hashes \
  --requirement constraints.txt
cyclonedx-py environment --output-reproducible "$folder/bin/python" | python3 -c '
import json, sys

bill = json.load(sys.stdin)
del bill["metadata"]  # of the tool
for component in bill["components"]:
    component.pop("externalReferences", None)
json.dump(bill, sys.stdout, indent=1)
print()
' >sbom.json
