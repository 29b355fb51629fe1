import { type DescFile, toBinary } from "@bufbuild/protobuf";
import { FileDescriptorProtoSchema } from "@bufbuild/protobuf/wkt";
import type { ServiceImpl } from "@connectrpc/connect";
import type {
  ServerReflection,
  ServerReflectionRequest,
} from "./gen/grpc/reflection/v1/reflection_pb.ts";

const NOT_FOUND = 5;
const UNIMPLEMENTED = 12;

/** Tells clients the schema of the given files, so that they need none of their own. */
export function reflectionService(files: DescFile[]): ServiceImpl<typeof ServerReflection> {
  const all = new Map<string, DescFile>();
  const visit = (file: DescFile) => {
    if (all.has(file.proto.name)) return;
    all.set(file.proto.name, file);
    file.dependencies.forEach(visit);
  };
  files.forEach(visit);
  const symbols = new Map<string, DescFile>();
  for (const file of all.values()) {
    for (const desc of [...file.messages, ...file.enums]) symbols.set(desc.typeName, file);
    for (const service of file.services) {
      symbols.set(service.typeName, file);
      for (const method of service.methods) symbols.set(`${service.typeName}.${method.name}`, file);
    }
  }
  return {
    async *serverReflectionInfo(requests) {
      for await (const request of requests)
        yield {
          validHost: request.host,
          originalRequest: request,
          messageResponse: answer(request, all, symbols),
        };
    },
  };
}

function answer(
  { messageRequest: asked }: ServerReflectionRequest,
  files: Map<string, DescFile>,
  symbols: Map<string, DescFile>,
) {
  const refuse = (errorCode: number, errorMessage: string) => ({
    case: "errorResponse" as const,
    value: { errorCode, errorMessage },
  });
  switch (asked.case) {
    case "listServices": {
      const service = [...files.values()]
        .flatMap((file) => file.services)
        .map((desc) => ({ name: desc.typeName }));
      return { case: "listServicesResponse" as const, value: { service } };
    }
    case "fileByFilename":
    case "fileContainingSymbol": {
      const found = (asked.case === "fileByFilename" ? files : symbols).get(asked.value);
      if (found === undefined) return refuse(NOT_FOUND, `${asked.value} is not known`);
      const fileDescriptorProto = withDependencies(found).map((file) =>
        toBinary(FileDescriptorProtoSchema, file.proto),
      );
      return { case: "fileDescriptorResponse" as const, value: { fileDescriptorProto } };
    }
    default:
      return refuse(UNIMPLEMENTED, "there are no extensions");
  }
}

function withDependencies(file: DescFile): DescFile[] {
  const found = new Set<DescFile>();
  const visit = (next: DescFile) => {
    if (found.has(next)) return;
    found.add(next);
    next.dependencies.forEach(visit);
  };
  visit(file);
  return [...found];
}
