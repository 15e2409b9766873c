#!/usr/bin/env bash
# Makes the images that the tests use available: from the registry, or, where none answers, built from
# Debian's packages: the same servers under the same tags, with the environment variables and commands of the
# official images as far as this project uses them (see offline/).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

HERE=$(cd "$(dirname "$0")" && pwd)
COMPOSE="$HERE/../{{cookiecutter.project_slug}}/compose.yaml"
ROOTFS=$CI_CACHE/$SUITE
BASE=debian-offline
PACKAGES=ca-certificates,redis-server,valkey-server,postgresql,python3,python3-venv,python3-pip

# The tags that the template names: both cache servers, and the Python that is the default.
VALKEY=$(grep -o 'valkey/valkey:[0-9][0-9.]*' "$COMPOSE" | head -n 1)
REDIS=$(grep -o "'redis:[0-9][0-9.]*" "$COMPOSE" | head -n 1 | tr -d "'")
POSTGRES=$(grep -o 'postgres:[0-9][0-9.]*$' "$COMPOSE" | head -n 1)
PYTHON=python:$(python3 -c '
import json, sys
print(json.load(open(sys.argv[1], encoding="utf-8"))["python_version"][0])' "$HERE/../cookiecutter.json")-slim

main() {
  local tag missing=()
  for tag in "$VALKEY" "$REDIS" "$PYTHON" "$POSTGRES"; do
    have "$tag" || missing+=("$tag")
  done
  if ((${#missing[@]})) && ! pull_all "${missing[@]}"; then
    say "no registry gives them: building them from Debian packages"
    build_rootfs
    import_base
    # The version that each must show is the one in its tag.
    build "$VALKEY" cache valkey-server --build-arg SERVER=valkey
    build "$REDIS" cache redis-server --build-arg SERVER=redis
    build "$PYTHON" python python
    build "$POSTGRES" postgres postgres
  fi
  for tag in "$VALKEY" "$REDIS" "$PYTHON" "$POSTGRES"; do
    say "$tag ($(docker image inspect --format '{{.Id}}' "$tag" | cut -c 8-19))"
  done
}

have() { docker image inspect "$1" >/dev/null 2>&1; }

# The first is small and decides: without a network it fails at once, behind a silent firewall in a minute.
pull_all() {
  local tag limit=60
  have "$BASE" && return 1
  for tag in "$@"; do
    say "pulling $tag"
    timeout "$limit" docker pull -q "$tag" >/dev/null 2>&1 || return 1
    limit=300
  done
}

build_rootfs() {
  [[ -e $ROOTFS/.complete ]] && return 0
  need_packages debootstrap
  say "bootstrapping Debian $SUITE into $ROOTFS"
  as_root rm -rf "$ROOTFS"
  as_root debootstrap --variant=minbase --include="$PACKAGES" "$SUITE" "$ROOTFS" "$(debian_mirror)" \
    >"$ROOTFS.log" 2>&1 || { tail -n 20 "$ROOTFS.log"; return 1; }
  as_root touch "$ROOTFS/.complete"
}

import_base() {
  have "$BASE" && return 0
  say "importing the base image"
  as_root tar -C "$ROOTFS" -c --exclude='./proc/*' --exclude='./sys/*' --exclude='./var/cache/apt/*' \
    --exclude='./var/lib/apt/lists/*' --exclude=./.complete . | docker import - "$BASE" >/dev/null
}

build() { # build TAG FOLDER SERVER [OPTION...]
  local tag=$1 folder=$2 server=$3 version
  have "$tag" && return 0
  say "building $tag"
  docker buildx build -q -t "$tag" "${@:4}" "$HERE/offline/$folder" >/dev/null
  version=$(docker run --rm --entrypoint "$server" "$tag" --version)
  version=$(grep -o '[0-9][0-9.]*' <<<"$version" | head -n 1)
  [[ ${tag##*:} =~ ^[0-9.]+ && $version. == "${BASH_REMATCH[0]}".* ]] || {
    docker image rm "$tag" >/dev/null
    say "Debian $SUITE has $server $version, and $tag is wanted"
    return 1
  }
}

main
