#!/bin/sh
# As in the official images: no command or options alone start the server, open on every address.
set -e
case ${1-} in
  '' | -*) set -- "$SERVER-server" "$@" ;;
esac
if [ "$1" = "$SERVER-server" ]; then
  shift
  set -- "$SERVER-server" --bind 0.0.0.0 --protected-mode no --dir /data "$@"
fi
exec "$@"
