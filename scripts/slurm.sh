#!/usr/bin/env bash
# Installs Slurm and munge where they are missing and this user may. `make test-slurm` runs this.
set -euo pipefail
missing=
for program in munged slurmctld slurmd sbatch; do
    PATH=$PATH:/usr/sbin:/sbin command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] && exit 0
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
    echo "Slurm is not installed (missing:$missing). On Debian or Ubuntu: apt-get install slurm-wlm munge" >&2
    exit 1
fi
echo "Installing Slurm (missing:$missing)"
apt-get update -qq
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq slurm-wlm munge
