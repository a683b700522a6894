#!/bin/sh
# Prints a secrets.env for the overlays `minikube` and `k3s`, with new secrets:
#   sh config/kubernetes/overlays/secrets.sh > config/kubernetes/overlays/minikube/secrets.env
# PostgreSQL keeps the password that its volume was made with: print it once, and keep the file.
set -eu
postgres=$(openssl rand -hex 24)
redis=$(openssl rand -hex 24)
cat <<EOF
postgres_password=$postgres
postgres_dsn=postgres://penstock:$postgres@postgres:5432/penstock
redis_password=$redis
redis_url=redis://:$redis@redis:6379/0
jwt_secret=$(openssl rand -hex 32)
webhook_secrets=["whsec_$(openssl rand -base64 32)"]
EOF
