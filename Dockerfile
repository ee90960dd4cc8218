# Countersign as one static binary: no shell, no libc, no package manager, not
# root. Needs at run time: a configuration file, the secrets in the
# environment, a folder for the audit log that uid 65532 may write to. It opens
# no port.

FROM golang:1.26-bookworm AS build
WORKDIR /src
# The modules first: they change less often than the code. The first build takes
# some minutes, because Microsoft's Graph models are many.
COPY go.mod go.sum ./
RUN go mod download && go mod verify
COPY . .
RUN CGO_ENABLED=0 go build -trimpath -ldflags='-s -w' -o /out/countersign ./cmd/countersign
# scratch has no mkdir.
RUN mkdir -p /out/var/lib/countersign /out/etc/countersign

FROM scratch
LABEL org.opencontainers.image.title="Countersign" \
      org.opencontainers.image.description="Microsoft Entra authentication methods from Slack, with a second person's approval"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /usr/local/go/lib/time/zoneinfo.zip /usr/share/zoneinfo.zip
ENV ZONEINFO=/usr/share/zoneinfo.zip
COPY --from=build /out/countersign /countersign
COPY --from=build /out/etc/countersign /etc/countersign
# A volume mounted here for the first time takes over this owner.
COPY --from=build --chown=65532:65532 /out/var/lib/countersign /var/lib/countersign
USER 65532:65532
WORKDIR /var/lib/countersign
ENTRYPOINT ["/countersign"]
CMD ["serve", "-config", "/etc/countersign/countersign.yaml"]
