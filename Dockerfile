# The image of washlet, for the platform that it is built on: `docker buildx build --platform linux/amd64,linux/arm64 .`
# `cargo xtask image` makes the same files into an image without Docker.
FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry cargo xtask image --rootfs /rootfs

FROM scratch
LABEL org.opencontainers.image.title="washlet" \
      org.opencontainers.image.source="https://github.com/washlet/washlet" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /rootfs/ /
USER 65532:65532
WORKDIR /
ENTRYPOINT ["/washlet"]
