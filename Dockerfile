# One image for the web process and the workers.
#   docker build .                                              plain PyTorch (on Linux the CUDA build)
#   docker build --build-arg TORCH_INDEX=<index of a build> .   another build, see the README
#   docker build --build-arg EXTRAS=[s3] .                      with what an optional feature needs: s3, gcs, otel
FROM python:3.12-slim

# libgomp: the OpenMP runtime LightGBM links to, which its wheel does not bring.
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 10001 mixwright \
    && install -d -o mixwright -g mixwright /data /corpora

WORKDIR /srv/mixwright
COPY constraints.txt pyproject.toml README.md LICENSE ./
ARG TORCH_INDEX=""
RUN if [ -n "$TORCH_INDEX" ]; then \
        pip install --no-cache-dir --no-deps --index-url "$TORCH_INDEX" torch==2.13.0; \
    else \
        pip install --no-cache-dir -c constraints.txt torch==2.13.0; \
    fi

COPY exchange exchange
COPY mixing mixing
COPY proxy_models proxy_models
COPY service service
COPY store store
COPY workers workers
COPY migrations migrations
COPY mixwright mixwright
ARG EXTRAS=""
RUN pip install --no-cache-dir -c constraints.txt ".$EXTRAS"

USER mixwright
WORKDIR /data
ENV MIXWRIGHT_DATA_DIRECTORY=/data \
    MIXWRIGHT_DATA_ROOTS=/corpora \
    OMP_NUM_THREADS=1 \
    OMP_WAIT_POLICY=PASSIVE \
    PYTHONUNBUFFERED=1
CMD ["mixwright", "serve"]
