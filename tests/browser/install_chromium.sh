#!/bin/sh
# A Chromium for the browser tests: the system's, else Debian's package when root, else
# Playwright's own (which downloads it into the user's cache).
set -eu
for name in chromium chromium-browser google-chrome; do
    if command -v "$name" >/dev/null 2>&1; then
        exit 0
    fi
done
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
    echo "Installing Debian's chromium ..."
    apt-get update -qq || echo "apt-get update failed; trying with the package lists there are" >&2
    if DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium >/dev/null; then
        exit 0
    fi
fi
echo "Installing Playwright's chromium ..."
${PLAYWRIGHT:-python -m playwright} install chromium
