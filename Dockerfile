FROM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
# Static, since the image it goes to has no C library. The checkout's history is not part of the build.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
    CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags=-s -o /outbox ./cmd/outbox

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /outbox /outbox
# The user "nonroot", by number: Kubernetes' runAsNonRoot cannot judge a name.
USER 65532:65532
# The API, and the operators' listener. That stays on the container's loopback until OUTBOX_ADMIN_ADDR says otherwise.
EXPOSE 8080 8081
HEALTHCHECK --interval=10s --timeout=6s --start-period=30s --retries=3 CMD ["/outbox", "healthcheck"]
ENTRYPOINT ["/outbox"]
CMD ["serve"]
