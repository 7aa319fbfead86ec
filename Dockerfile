# docker build -t mrda .  (CPU; --build-arg TORCH_INDEX=https://pypi.org/simple for CUDA)
FROM python:3.12-slim
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN apt-get update && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/* && useradd --create-home mrda
COPY . /mrda
RUN pip install --no-cache-dir --extra-index-url "$TORCH_INDEX" --constraint /mrda/constraints.txt "/mrda[web]"
USER mrda
WORKDIR /home/mrda
EXPOSE 7860
ENTRYPOINT ["mrda-upscale"]
