"""Say what to do next. Offline and idempotent: an update of the template runs this file again.

Choices are whole files picked while rendering (see `templates/`), so there is nothing left to delete.
"""

import json

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")

SLUG = ANSWERS["project_slug"]
CACHE_SERVER = ANSWERS["cache_server"].capitalize()

print(
    f"""
{SLUG} is ready. Next:

  cd {SLUG}
  make run        servers, migrations and the API; docs on http://localhost:8000/docs (no Docker needed)
  make test       the whole suite, against real PostgreSQL and {CACHE_SERVER}
  make help       everything else

README.md has the rest: the first ten minutes, adding a resource, deploying.
"""
)
