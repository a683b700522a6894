# One image for every role, for migrations and for the command line: `docker build -t penstock .`
# The base is pinned by tag and digest (amd64 and arm64); dependabot moves both together.

FROM python:3.14.7-slim-trixie@sha256:51dafde81dbdb6ebde285137a295cf18a47ca95234fe388a343719cb97305b3d AS build

ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore
WORKDIR /build

# The locks first: this layer lasts until a dependency changes. Wheels only: nothing is compiled.
COPY config/runtime.lock config/build.lock config/
RUN python -m venv --without-pip /opt/penstock \
    && pip --python /opt/penstock/bin/python install --require-hashes --only-binary :all: -r config/runtime.lock \
    && pip install --require-hashes --only-binary :all: -r config/build.lock

COPY pyproject.toml LICENSE ./
COPY config/base.yaml config/development.yaml config/
COPY migrations migrations
COPY app app
RUN python -m hatchling build -t wheel -d wheel \
    && pip --python /opt/penstock/bin/python install --no-deps wheel/penstock-*.whl


FROM python:3.14.7-slim-trixie@sha256:51dafde81dbdb6ebde285137a295cf18a47ca95234fe388a343719cb97305b3d

# What could install something goes; the user has a number, for Kubernetes to see that it isn't root.
RUN pip uninstall --yes --root-user-action=ignore pip \
    && rm -r /usr/local/lib/python3.*/ensurepip \
    && groupadd --gid 10001 penstock \
    && useradd --uid 10001 --gid 10001 --home-dir /srv/penstock --no-create-home --shell /usr/sbin/nologin penstock \
    && install -d -o 10001 -g 10001 -m 700 /run/secrets/penstock

# An operator may mount his own over it.
COPY config/base.yaml config/development.yaml /etc/penstock/
COPY --from=build /opt/penstock /opt/penstock

ENV PATH=/opt/penstock/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 PENSTOCK_CONFIG_DIR=/etc/penstock \
    PENSTOCK_HTTP__HOST=0.0.0.0

# Modules with handlers of your own go here (or onto PYTHONPATH), and into PENSTOCK_HANDLERS__MODULES.
WORKDIR /srv/penstock
USER 10001:10001
EXPOSE 8080

# 40 ms of a processor each. A replica that is up but can't serve is unhealthy, and not restarted for it.
HEALTHCHECK --interval=5s --timeout=4s --start-period=75s --retries=3 \
    CMD ["python", "-I", "-c", "import http.client, os, sys; c = http.client.HTTPConnection('127.0.0.1', int(os.environ.get('PENSTOCK_HTTP__PORT', '8080')), timeout=3); c.request('GET', '/readyz'); sys.exit(c.getresponse().status != 200)"]

ENTRYPOINT ["penstock"]
CMD ["serve"]

ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="penstock" \
    org.opencontainers.image.description="A job scheduling server on PostgreSQL and Redis" \
    org.opencontainers.image.licenses="Apache-2.0" \
    org.opencontainers.image.version="$VERSION" \
    org.opencontainers.image.revision="$REVISION"
