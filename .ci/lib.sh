# shellcheck shell=bash
# Shared by the scripts beside it; sourced, not run.

# What is kept between runs: packages and the root file system of the offline images.
CI_CACHE=${CI_CACHE:-/var/tmp/fastapi-cache-template-ci}

# The release of Debian that the plugins and the offline images are taken from.
export SUITE=trixie

export DEBIAN_FRONTEND=noninteractive

say() { printf '   %s\n' "$*"; }

as_root() {
  if [[ $(id -u) == 0 ]]; then "$@"; else sudo -n -- "$@"; fi
}

# Installs the packages named, as far as they are missing.
need_packages() {
  local missing=() package
  for package in "$@"; do
    dpkg-query -W -f '${Status}' "$package" 2>/dev/null | grep -q '^install ok installed' || missing+=("$package")
  done
  ((${#missing[@]})) || return 0
  say "installing ${missing[*]}"
  as_root apt-get update -qq
  as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" \
    </dev/null >/dev/null
}

# The mirror of Debian that this machine's apt uses already.
debian_mirror() {
  # shellcheck disable=SC2016  # the format is apt's
  apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' |
    grep '/debian/\?$' | grep -v security | head -n 1
}
