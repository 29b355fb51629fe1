/** The arrows of ARCHITECTURE.md. Whatever is not allowed between two folders is refused. */
const ADAPTERS = [
  "coordination/etcd",
  "coordination/sqlite",
  "storage/azure",
  "storage/local",
  "rpc",
  "streaming",
];

const only = (from, allowed) => ({
  name: `${from.replaceAll("/", "-")}-imports-only-what-it-may`,
  severity: "error",
  from: { path: `^internal/${from}/` },
  to: {
    path: "^(internal|cmd|test)/",
    pathNot: [from, ...allowed].map((folder) => `^internal/${folder}/`),
  },
});

const keeps = (library, folder) => ({
  name: `${library.replace(/\W+/g, "-")}-stays-in-${folder.replace(/\W+/g, "-")}`,
  severity: "error",
  from: { path: "^(internal|cmd)/", pathNot: `^${folder}/` },
  to: { path: `^(node_modules/)?${library}` },
});

module.exports = {
  forbidden: [
    only("model", []),
    only("scheduler", ["model"]),
    only("shuffle", ["model"]),
    only("http", ["model", "codec"]),
    ...ADAPTERS.map((adapter) => only(adapter, ["model"])),
    only("master", ["model", "scheduler", "shuffle"]),
    only("codec", ["model"]),
    only("worker", ["model", "codec", "shuffle", "streaming"]),
    keeps("etcd3", "internal/coordination/etcd"),
    keeps("cockatiel", "internal/coordination/etcd"),
    keeps("@azure/", "internal/storage/azure"),
    keeps("koa", "internal/http"),
    keeps("@koa/", "internal/http"),
    keeps("prom-client", "internal/http"),
    keeps("@connectrpc/", "internal/rpc"),
    keeps("@bufbuild/", "internal/rpc"),
    keeps("@grpc/", "internal/rpc"),
    keeps("tar", "internal/codec"),
    keeps("yauzl", "internal/codec"),
    keeps("unbzip2-stream", "internal/codec"),
    keeps("es-module-lexer", "internal/streaming"),
    keeps("pino", "cmd/common"),
    {
      name: "generated-code-stays-in-rpc",
      severity: "error",
      from: { pathNot: "^internal/rpc/" },
      to: { path: "^internal/rpc/gen/" },
    },
    {
      name: "the-pure-parts-know-no-system",
      severity: "error",
      from: { path: "^internal/(model|scheduler)/" },
      to: { dependencyTypes: ["core"] },
    },
    { name: "no-cycles", severity: "error", from: {}, to: { circular: true } },
    { name: "resolvable", severity: "error", from: {}, to: { couldNotResolve: true } },
  ],
  options: {
    tsPreCompilationDeps: true,
    tsConfig: { fileName: "tsconfig.json" },
    doNotFollow: { path: "node_modules" },
    enhancedResolveOptions: {
      exportsFields: ["exports"],
      conditionNames: ["import", "node", "default"],
    },
  },
};
