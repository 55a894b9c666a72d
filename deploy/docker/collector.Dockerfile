# The collector. Build with deploy/docker/build.sh, which fetches the wheels by their locked hashes first:
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
 && mkdir -p /empty/flopmeter/collector

FROM ${BASE}
LABEL org.opencontainers.image.title="flopmeter collector" org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/flopmeter /opt/flopmeter
# A volume that is made from the image takes the owner of this folder.
COPY --from=build --chown=65532:65532 /empty/flopmeter /var/lib/flopmeter
# void: on nodes whose runtime hands every container the GPUs, this one asks for none.
ENV PATH=/opt/flopmeter/bin:$PATH PYTHONUNBUFFERED=1 NVIDIA_VISIBLE_DEVICES=void
USER 65532:65532
VOLUME ["/var/lib/flopmeter/collector"]
STOPSIGNAL SIGTERM
ENTRYPOINT ["flopmeter", "collector"]
CMD ["serve"]
