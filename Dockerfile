# Portolan as a static binary on an empty image.
#   docker build -t portolan:dev .                       the gateway
#   docker build -t portolan-echo:dev --target echo .    the sample application of deploy/examples
# Needs BuildKit (the default since Docker 23), or buildah.

FROM rust:1.95 AS toolchain
WORKDIR /build
# Static glibc, so that nothing but the binary is needed at run time. The flags count for the target alone and not for
# proc macros and build scripts, because every build below names its target.
ENV RUSTFLAGS="-C target-feature=+crt-static" \
    CARGO_PROFILE_RELEASE_DEBUG=none \
    CARGO_PROFILE_RELEASE_STRIP=symbols

# The workspace with its sources emptied: manifests, lock file and one stub for each crate root. The next stage copies the
# result, and layers of files are compared by content: it is built anew only when a dependency changes.
FROM toolchain AS manifests
COPY . .
RUN find . -name '*.rs' ! -path '*/src/lib.rs' ! -path '*/src/main.rs' ! -path '*/src/bin/*.rs' ! -path '*/tests/*.rs' \
        ! -path '*/benches/*.rs' ! -path '*/examples/*.rs' -delete \
    && find . -name '*.rs' -exec sh -c 'for f; do echo "fn main() { }" > "$f"; done' _ {} + \
    && find . -name lib.rs -exec truncate --size 0 {} + \
    && find . -type f ! -name '*.rs' ! -name Cargo.toml ! -name Cargo.lock -delete \
    && find . -type d -empty -delete

FROM toolchain AS dependencies
COPY --from=manifests /build .
RUN target=$(rustc --print host-tuple) \
    && cargo build --release --locked --target "$target" --package portolan

# Copied files keep their time stamps, which may be older than the stubs' build: touch them, or cargo keeps the stubs.
FROM dependencies AS build
COPY . .
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && target=$(rustc --print host-tuple) \
    && cargo build --release --locked --target "$target" --package portolan \
    && install -D "target/$target/release/portolan" /image/portolan

FROM dependencies AS build-echo
COPY . .
RUN find . -path ./target -prune -o -name '*.rs' -exec touch {} + \
    && target=$(rustc --print host-tuple) \
    && cargo build --release --locked --target "$target" --package portolan-loadtest \
    && install -D "target/$target/release/portolan-loadtest" /image/portolan-loadtest

FROM scratch AS echo
COPY --from=build-echo /image/ /
USER 65532:65532
EXPOSE 8080 8081
ENTRYPOINT ["/portolan-loadtest"]
CMD ["backend"]

# No certificates of public authorities: the only TLS peer is the API server, and its authority comes with the
# ServiceAccount token or the kubeconfig.
FROM scratch AS portolan
ARG VERSION=dev
ARG REVISION=unknown
LABEL org.opencontainers.image.title="portolan" \
      org.opencontainers.image.description="A Kubernetes-native service-discovery gateway" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"
COPY --from=build /image/ /
USER 65532:65532
EXPOSE 8080 8081 9902
ENTRYPOINT ["/portolan"]
CMD ["run"]
