#!/usr/bin/env bash
# Ends the cluster of DTK_CLUSTER_DIR, with every job in it. The directory stays, for its logs; the next up.sh empties it.
set -euo pipefail
# shellcheck source=common.sh
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"
no_arguments "$@"
[ -d "$DIR" ] || exit 0
lock
take_down
