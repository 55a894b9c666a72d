# The node agent. Build with deploy/docker/build.sh, which fetches the wheels by their locked hashes first:
# the build itself needs no network and resolves nothing.
#
# BASE: an image with Python 3.11 or newer as python3, its venv module, and CA certificates. Name it by
# digest in production; the wheels must have been fetched by the same Python minor version.
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS build
COPY wheels /wheels
COPY requirements.lock /requirements.lock
RUN python3 -m venv /opt/flopmeter \
 && /opt/flopmeter/bin/python -m pip install --quiet --no-index --find-links /wheels --require-hashes -r /requirements.lock \
 && /opt/flopmeter/bin/python -m pip install --quiet --no-index --no-deps /wheels/flopmeter-*.whl \
 && /opt/flopmeter/bin/python -m compileall -q /opt/flopmeter \
 && /opt/flopmeter/bin/python -m pip --quiet uninstall --yes pip setuptools

FROM ${BASE}
LABEL org.opencontainers.image.title="flopmeter agent" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/flopmeter /opt/flopmeter
# NVML comes from the node: the container toolkit puts libnvidia-ml.so in, this image never carries one.
ENV PATH=/opt/flopmeter/bin:$PATH PYTHONUNBUFFERED=1 NVIDIA_DRIVER_CAPABILITIES=utility
# uid 0 on purpose, and with every capability dropped by the manifest: on Kubernetes the spool is a hostPath
# and the kubelet's pod-resources directory is 0750 root:root, so another uid could use neither. It needs no
# capability, no privilege escalation and no writable root (docs/deploy.md).
# hadolint ignore=DL3002
USER 0:0
VOLUME ["/var/lib/flopmeter/agent"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["flopmeter", "agent"]
CMD ["run"]
