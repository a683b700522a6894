#!/bin/sh
# Makes the secrets of an overlay to try out, anew: sh config/kubernetes/overlays/secrets.sh minikube
# PostgreSQL keeps the password that its volume was made with, so what is there is not made again.
set -eu
umask 077
cd "$(dirname "$0")/$1"
if [ -e services.env ]; then
    echo "$PWD/services.env is there already" >&2
    exit 1
fi
postgres=$(openssl rand -hex 24)
redis=$(openssl rand -hex 24)
cat >penstock.env <<EOF
postgres.dsn=postgres://penstock:$postgres@postgres:5432/penstock
redis.url=redis://:$redis@redis:6379/0
auth.jwt_secret=$(openssl rand -hex 32)
webhook.secrets=["whsec_$(openssl rand -base64 32)"]
EOF
cat >services.env <<EOF
postgres_password=$postgres
redis_password=$redis
EOF
