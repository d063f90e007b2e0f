# The image of enclave-signer. `make image IMAGE_TOML=FILE` builds it: docs/confidential-space.md.
#
# The stage that builds has Debian 12's Python and pip, and needs no network: wheels are fetched before, and checked here by
# their hashes. Its base has no default that could be pulled: it is part of what the digest stands for, so name it.
ARG BASE=refuse-to-build:name-a-base-by-its-digest
FROM ${BASE} AS build
WORKDIR /source
COPY LICENSE requirements.txt requirements-enclave.txt ./
COPY build build
COPY image image
COPY enclave_signer enclave_signer

FROM build AS made
RUN python3 image/root.py --image-toml build/image.toml --out /made/application \
 && python3 image/interpreter.py --application /made/application --out /made/interpreter \
 && python3 image/sbom.py --application /made/application --interpreter /made/interpreter --out /made/sbom.json

FROM build AS made-for-development
RUN python3 image/root.py --development --image-toml build/image.toml --out /made/application \
 && python3 image/interpreter.py --application /made/application --out /made/interpreter \
 && python3 image/sbom.py --application /made/application --interpreter /made/interpreter --out /made/sbom.json

# Not for keys of value, never pushed: it has the sealer that keeps its key in a file.
FROM scratch AS development
COPY --from=made-for-development /made/interpreter/ /
COPY --from=made-for-development /made/application/ /
USER 65532:65532
EXPOSE 2000
ENTRYPOINT ["/usr/bin/python3", "-I", "-S", "-B", "/usr/lib/enclave-signer", "--image", "/etc/enclave-signer/image.toml"]

# The host: not measured, and run where a shell is of use.
FROM build AS made-for-the-host
COPY host_backend host_backend
RUN python3 image/root.py --host --out /made

FROM ${BASE} AS host
COPY --from=made-for-the-host /made/ /
ENV PYTHONPATH=/usr/lib/enclave-host PYTHONDONTWRITEBYTECODE=1
USER 65532:65532
EXPOSE 6732 9583
ENTRYPOINT ["/usr/bin/python3", "-m", "host_backend"]

# The layer of what is measured, and the list of what is in it.
FROM made AS written
RUN python3 image/layer.py --application /made/application --interpreter /made/interpreter --out /made/layer.tar.gz

FROM scratch AS measured
COPY --from=written /made/sbom.json /made/layer.tar.gz /

# What is measured; `make image` puts the layer above in place of the builder's own. Whoever starts the machine may set none of
# its words and variables, and reads its log on debug machines alone.
FROM scratch AS production
COPY --from=made /made/interpreter/ /
COPY --from=made /made/application/ /
LABEL tee.launch_policy.allow_cmd_override=false \
      tee.launch_policy.allow_env_override="" \
      tee.launch_policy.log_redirect=debugonly
USER 65532:65532
EXPOSE 2000
ENTRYPOINT ["/usr/bin/python3", "-I", "-S", "-B", "/usr/lib/enclave-signer", "--image", "/etc/enclave-signer/image.toml"]
