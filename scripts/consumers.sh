#!/usr/bin/env bash
# Makes .consumers/NAME, an environment for each trainer whose loader draws from our exports, and each scheduler's own parser. `make test-consumers` runs this.
# Each pins another torch or transformers than ours, so none of them shares the project's environment.
set -euo pipefail
cd "$(dirname "$0")/.."

# With torch, unless it is "light".
make_environment() {
    local name=$1 directory=.consumers/$1 torch=yes
    shift
    [ "$1" = light ] && torch= && shift
    [ -e "$directory/.installed" ] && return
    echo "Installing $name"
    .venv/bin/python -m venv --clear "$directory"
    local pip=("$directory/bin/python" -m pip --disable-pip-version-check --no-input install --quiet)
    # In every call, or the package's own requirement brings a build for accelerators.
    [ -z "$torch" ] || "${pip[@]}" "torch==2.13.0" numpy
    "$@" "${pip[@]}"
    touch "$directory/.installed"
}

olmo_core() { "$@" "torch==2.13.0" ai2-olmo-core==3.0.0; }
megatron() { "$@" "torch==2.13.0" megatron-core==0.16.1; }
kubernetes() { "$@" kubernetes-validate==1.37.0; }
skypilot() { "$@" skypilot==0.14.1; }
datasets() { "$@" datasets==5.2.0; }
litdata() { "$@" "torch==2.13.0" litdata==0.2.76; }
axolotl() {
    "$@" "torch==2.13.0" datasets==4.8.4 transformers==5.16.1 pydantic==2.12.5 accelerate addict
    # Its own requirements are those of training too; its loader imports these.
    "$@" --no-deps axolotl==0.19.0 peft==0.21.2 trl==1.16.0 numba==0.68.1 llvmlite==0.50.0 posthog distro colorama
}
streaming() {
    # Its own requirements bring torchvision, and with it another torch.
    "$@" --no-deps mosaicml-streaming==0.13.0
    "$@" "torch==2.13.0" brotli python-snappy "xxhash<4" zstd catalogue matplotlib boto3 "transformers<5" tqdm requests \
        pyyaml pillow oci azure-storage-blob azure-identity azure-storage-file-datalake google-cloud-storage "paramiko<4"
}

make_environment olmo-core olmo_core
make_environment megatron megatron
make_environment datasets datasets
make_environment axolotl axolotl
make_environment litdata litdata
make_environment streaming streaming
make_environment kubernetes light kubernetes
make_environment skypilot light skypilot
