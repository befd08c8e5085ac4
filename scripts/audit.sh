#!/usr/bin/env bash
# Known vulnerabilities of what constraints.txt pins, by pip-audit in an environment of its own.
#   0  none is known, or nobody could be asked (said loudly)
#   1  there are some
set -uo pipefail
cd "$(dirname "$0")/.."

venv=.audit
report=$(mktemp)
trap 'rm -f "$report"' EXIT

not_audited() {
    echo "======== DEPENDENCIES NOT AUDITED: $1 ========" >&2
    exit 0
}

if ! [ -x $venv/bin/pip-audit ]; then
    .venv/bin/python -m venv $venv && $venv/bin/python -m pip --disable-pip-version-check --no-input install --quiet pip-audit \
        >"$report" 2>&1 || not_audited "pip-audit cannot be installed here: $(tail -n 1 "$report")"
fi
timeout 300 $venv/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --progress-spinner off \
    --format json >"$report" 2>"$report.log"
status=$?
tail -n 3 "$report.log" >&2
rm -f "$report.log"

# An index that has no advisories answers "not found" for every package: that is no clean bill.
.venv/bin/python - "$report" <<'PYTHON'
import json
import sys

try:
    with open(sys.argv[1]) as file:
        found = json.load(file)["dependencies"]
except (ValueError, KeyError, TypeError):
    sys.exit(2)
vulnerable = [(one["name"], one["version"], flaw) for one in found for flaw in one.get("vulns", ())]
for name, version, flaw in vulnerable:
    print(f"{name} {version}: {flaw['id']}, fixed in {', '.join(flaw['fix_versions']) or 'no version'}")
skipped = [one["name"] for one in found if "skip_reason" in one]
print(f"audited {len(found) - len(skipped)} of {len(found)} packages, {len(vulnerable)} known vulnerabilities")
if vulnerable:
    sys.exit(1)
if skipped:
    print(f"not audited: {', '.join(skipped[:8])}{' ...' if len(skipped) > 8 else ''}", file=sys.stderr)
    sys.exit(3 if len(skipped) == len(found) else 0)
PYTHON
case $? in
    0) exit 0 ;;
    1) exit 1 ;;
    3) not_audited "the advisory service knew none of the packages" ;;
    *) not_audited "pip-audit ended with status $status and no report; is there a network?" ;;
esac
