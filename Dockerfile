# docker build -t lares . && docker run --rm lares   runs the quickstart; any other command goes after the image's name.
FROM python:3.12-slim-bookworm
RUN apt-get update && apt-get install -y --no-install-recommends libosmesa6 && rm -rf /var/lib/apt/lists/*
# OSMesa renders without a GPU; PyTorch's own index has the build without CUDA.
ENV MUJOCO_GL=osmesa PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu PATH=/lares/.venv/bin:$PATH
WORKDIR /lares
COPY run.sh requirements.txt ./
RUN bash run.sh setup
COPY . .
RUN pip install --no-deps --editable .
CMD ["bash", "run.sh", "quickstart"]
