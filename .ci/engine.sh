#!/usr/bin/env bash
# Brings up a Docker Engine with the plugins buildx and compose on Debian; does nothing where they answer.
#
#   engine.sh start    writes the process id of a dockerd that it had to start to $CI_CACHE/dockerd.pid
#   engine.sh stop     stops that one, and no other
#
# CI_DOCKER_ROOT: where such a dockerd keeps its images and volumes (default: where dockerd does).
set -euo pipefail
# shellcheck source-path=SCRIPTDIR
. "$(dirname "$0")/lib.sh"

PID_FILE=$CI_CACHE/dockerd.pid
LOG=$CI_CACHE/dockerd.log

start() {
  mkdir -p "$CI_CACHE"
  install_engine
  start_engine
  install_plugins
  say "$(docker version --format 'Docker Engine {{.Server.Version}}'), buildx $(docker buildx version |
    grep -o 'v\?[0-9][0-9.]*[^ ]*' | head -n 1), compose $(docker compose version --short)"
}

stop() {
  local pid
  [[ -e $PID_FILE ]] || return 0
  pid=$(cat "$PID_FILE")
  if is_running "$pid" dockerd; then
    as_root bash -c "kill $pid" # the builtin: not every machine has the program
    for _ in $(seq 60); do
      is_running "$pid" dockerd || break
      sleep 0.5
    done
    ! is_running "$pid" dockerd || { say "dockerd ($pid) did not stop"; return 1; }
    say "stopped the Docker Engine"
  fi
  rm -f "$PID_FILE"
}

is_running() { # is_running PID NAME
  [[ $(cat "/proc/$1/comm" 2>/dev/null) == "$2" ]]
}

engine_answers() { timeout 20 docker info >/dev/null 2>&1; }

install_engine() {
  command -v docker >/dev/null && engine_answers && return 0
  command -v dockerd >/dev/null || need_packages docker.io iptables
  command -v docker >/dev/null || need_packages docker-cli
}

start_engine() {
  engine_answers && return 0
  if is_running "$(as_root cat /var/run/docker.pid 2>/dev/null)" dockerd; then
    # Installing the package may have started it a moment ago.
    say "waiting for the dockerd that runs"
    wait_for_engine || { say "dockerd runs, but does not answer $(id -un)"; return 1; }
    return 0
  fi
  # What was killed leaves a pid file, whose number may belong to another process by now, or a socket.
  forget_dead dockerd /var/run/docker.pid
  forget_dead containerd /var/run/docker/containerd/containerd.pid
  grep -qsx containerd /proc/[0-9]*/comm || as_root rm -f /run/containerd/containerd.sock
  say "starting dockerd (log: $LOG)"
  # Its own session and no descriptor of ours: it neither dies with this script nor keeps a caller waiting.
  # shellcheck disable=SC2024  # the log is ours
  as_root setsid -f dockerd --group "$(id -gn)" ${CI_DOCKER_ROOT:+--data-root "$CI_DOCKER_ROOT"} \
    </dev/null >"$LOG" 2>&1
  wait_for_engine || { tail -n 20 "$LOG"; say "dockerd did not come up"; return 1; }
  cp /var/run/docker.pid "$PID_FILE"
}

wait_for_engine() {
  local _
  for _ in $(seq 120); do
    engine_answers && return 0
    sleep 0.5
  done
  return 1
}

forget_dead() { # forget_dead NAME PID_FILE
  local pid
  pid=$(as_root cat "$2" 2>/dev/null) || return 0
  is_running "$pid" "$1" || as_root rm -f "$2"
}

# bookworm has neither plugin: both come from $SUITE, checked by apt against the keys of this machine.
install_plugins() {
  local into=${DOCKER_CONFIG:-$HOME/.docker}/cli-plugins packages=$CI_CACHE/plugins plugin
  docker compose version >/dev/null 2>&1 && docker buildx version >/dev/null 2>&1 && return 0
  if ! compgen -G "$packages/*/usr/libexec/docker/cli-plugins/docker-*" >/dev/null; then
    say "fetching the plugins buildx and compose"
    download_packages "$packages" docker-buildx docker-compose
  fi
  mkdir -p "$into"
  for plugin in "$packages"/*/usr/libexec/docker/cli-plugins/docker-*; do
    install -m 755 "$plugin" "$into/"
  done
}

download_packages() ( # download_packages FOLDER PACKAGE...
  local folder=$1 apt=$1/apt
  shift
  mkdir -p "$apt"/{lists/partial,cache/archives/partial}
  printf 'deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
    "$(debian_mirror)" "$SUITE" >"$apt/sources.list"
  : >"$apt/status"
  local options=(-q -q -o "Dir::Etc::SourceList=$apt/sources.list" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$apt/lists"
    -o "Dir::State::status=$apt/status" -o "Dir::Cache=$apt/cache" -o APT::Sandbox::User=root -o Acquire::Languages=none)
  apt-get "${options[@]}" update
  cd "$folder"
  apt-get "${options[@]}" download "$@"
  for package in "$@"; do
    dpkg-deb -x "$package"_*.deb "$package"
  done
  rm -rf "$apt" ./*.deb
)

case ${1-} in
  start | stop) "$1" ;;
  *) sed -n '2,7s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
