#!/usr/bin/env bash
# Installs dspylab from the checkout of this action, so that its version is the action's.
#   GITHUB_ACTION_PATH  the checkout
#   EXTRAS              extras, with commas between them; may be empty
set -euo pipefail

python -m pip install --disable-pip-version-check "$GITHUB_ACTION_PATH${EXTRAS:+[$EXTRAS]}"
