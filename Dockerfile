# The image that `python train/submit.py kubernetes --image IMAGE` names: a checkout in /app.
#
#     docker build -t IMAGE .
#     docker build -t IMAGE --build-arg TORCH_INDEX=https://download.pytorch.org/whl/cu128 .
#
# The first is for the CPU, the second for GPUs: the index is that of PyTorch's builds for one CUDA.
ARG PYTHON=3.12
FROM python:${PYTHON}-slim

ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ARG EXTRAS=train,s3
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1

# The largest layer first, in the range of pyproject.toml: a change of the code leaves it as it is.
# Whoever runs in the container is not root; 1000 is the first user of most machines and volumes.
RUN useradd --uid 1000 --create-home probe \
    && install --directory --owner probe /app \
    && pip install --index-url "${TORCH_INDEX}" 'torch>=2.6,<2.14'

WORKDIR /app
COPY --chown=1000 . .
RUN pip install --editable ".[${EXTRAS}]"

# A run writes to its working folder: /app, or the first --claim.
USER 1000
CMD ["python", "train/probe.py", "--help"]
