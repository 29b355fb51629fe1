# Rendered by `npm run render` from deploy/docker/Dockerfile.in: edit that one.
# The stages `dependencies` and `base` are the same in all images, so they are built once.
ARG NODE_IMAGE=node:24-bookworm-slim

FROM ${NODE_IMAGE} AS dependencies
WORKDIR /app
COPY package.json package-lock.json ./
# Without `optional`: the image brings its own Node. Without scripts: none of ours needs any.
# Half of what it brings is for those who build or debug with it.
RUN npm ci --omit=dev --omit=optional --ignore-scripts --no-audit --no-fund \
 && find node_modules -type f \( -name '*.map' -o -name '*.d.ts' -o -name '*.d.mts' -o -name '*.d.cts' \) -delete

FROM ${NODE_IMAGE} AS base
RUN apt-get update \
 && apt-get install -y --no-install-recommends tini \
 && rm -rf /var/lib/apt/lists/* \
 && groupadd --gid 10001 mr \
 && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin mr \
 && install -d -o mr -g mr /scratch
WORKDIR /app
ENV NODE_ENV=production

FROM base AS proxy
ENV HTTP_HOST=::
COPY --from=dependencies /app/node_modules node_modules
COPY package.json ./
COPY internal internal
COPY cmd cmd
USER 10001:10001
EXPOSE 8080
ENTRYPOINT ["tini", "--", "node"]
CMD ["cmd/proxy/main.ts"]
