# Everything on the CPU, in a container:
#   docker build -t sftrl . && docker run --rm -it -p 8888:8888 sftrl           # play both tasks, in the browser
#   docker run --rm -it -v sftrl:/home/sftrl/data -e SFTRL_HOME=/home/sftrl/data sftrl make reproduce
#                                                         # what it makes is kept in the volume, tables and figures too
FROM python:3.12-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends git make \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home sftrl
USER sftrl
WORKDIR /home/sftrl/sftrl

# First what the environment is made from, so that a change of the code does not build it again.
COPY --chown=sftrl requirements.lock pyproject.toml Makefile README.md LICENSE ./
COPY --chown=sftrl sftrl_lib/__init__.py sftrl_lib/doctor.py sftrl_lib/
RUN make env
COPY --chown=sftrl . .
# The copies are younger than the environment, which is what make goes by.
RUN touch .venv/ready && mkdir -p build /home/sftrl/data

EXPOSE 8888
CMD ["make", "play", "ARGS=--no-browser --ip=0.0.0.0"]
