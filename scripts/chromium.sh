#!/usr/bin/env bash
# The browser of the dashboard's tests. Root on Debian gets it installed; anybody else is told what is missing.
set -euo pipefail

for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null; then exit 0; fi
done

if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    echo "Installing chromium for the browser tests"
    if { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium; } \
        >/tmp/mixwright-chromium.log 2>&1; then
        exit 0
    fi
    echo "apt-get failed; the end of /tmp/mixwright-chromium.log:" >&2
    tail -n 5 /tmp/mixwright-chromium.log >&2
fi
echo "******** No chromium on PATH: the browser tests WILL BE SKIPPED (Debian: apt-get install chromium)." >&2
