#!/usr/bin/env bash
# Writes docker/.env, which compose.yaml reads, with new passwords and keys; refuses to replace an existing one.
set -euo pipefail
cd "$(dirname "$0")"
[ ! -e .env ] || { echo "docker/.env exists already; move it away to make a new one"; exit 1; }
secret() { python3 -c 'import secrets; print(secrets.token_hex(32))'; }
fernet() { python3 -c 'import base64, os; print(base64.urlsafe_b64encode(os.urandom(32)).decode())'; }
umask 077
cat >.env <<END
AIRFLOW_DB_PASSWORD=$(secret)
LAION_DB_PASSWORD=$(secret)
S3_ACCESS_KEY=$(secret)
S3_SECRET_KEY=$(secret)
FERNET_KEY=$(fernet)
API_SECRET_KEY=$(secret)
JWT_SECRET=$(secret)
ADMIN_PASSWORD=$(secret)
# Key ranges on additional servers (docs/scaling-postgres.md): all connections in order, the second one, and all URLs.
LAION_DATABASE_CONN_ID=laion_postgres
LAION_POSTGRES_1=
LAION_DATABASE_URLS=
# Websites see this: a name, and an address where you can be reached.
LAION_ETL_DOWNLOAD_USER_AGENT=
# Prometheus on 127.0.0.1:9090, with Airflow's and the stages' metrics; remove both lines to run without them.
COMPOSE_PROFILES=metrics
METRICS=True
END
echo "docker/.env is written: name yourself in LAION_ETL_DOWNLOAD_USER_AGENT there. The UI's user is admin, with ADMIN_PASSWORD."
