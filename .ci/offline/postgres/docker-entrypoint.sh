#!/bin/sh
# The first start of the official image: initdb as POSTGRES_USER with POSTGRES_PASSWORD, then POSTGRES_DB.
set -e
bin=$(echo /usr/lib/postgresql/*/bin)
user=${POSTGRES_USER:-postgres}
db=${POSTGRES_DB:-$user}

as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }

install -d -o postgres -m 700 "$PGDATA"
if [ ! -s "$PGDATA/PG_VERSION" ]; then
  : "${POSTGRES_PASSWORD:?must be set}"
  password=$(mktemp)
  printf %s "$POSTGRES_PASSWORD" >"$password"
  chown postgres "$password"
  as_postgres "$bin/initdb" -D "$PGDATA" -U "$user" --encoding=UTF8 --locale=C.UTF-8 \
    --pwfile="$password" --auth-host=scram-sha-256 --auth-local=trust
  rm -f "$password"
  echo "host all all all scram-sha-256" >>"$PGDATA/pg_hba.conf"
  # Not over TCP: who waits for a port sees only the server that stays.
  as_postgres "$bin/pg_ctl" -D "$PGDATA" -o '-c listen_addresses=' -w start
  [ "$db" = postgres ] || as_postgres "$bin/createdb" -U "$user" "$db"
  as_postgres "$bin/pg_ctl" -D "$PGDATA" -m fast -w stop
fi

# No command, "postgres" or options alone start the server; anything else is run as it is.
case ${1-} in
  '' | -*) ;;
  postgres) shift ;;
  *) exec "$@" ;;
esac
exec setpriv --reuid postgres --regid postgres --clear-groups \
  "$bin/postgres" -D "$PGDATA" -c listen_addresses='*' "$@"
