import { expand } from "../codec/decompress.ts";
import { contractOf, extensionOf } from "../model/contract.ts";
import { MrError } from "../model/errors.ts";
import { partName } from "../model/ids.ts";
import type { JobView } from "../model/job.ts";
import { joinName, locationOf } from "../model/names.ts";
import type { ObjectInfo, ObjectStore } from "../model/object_store.ts";

/**
 * The result of a job that has succeeded: its parts in order, decompressed where it compressed
 * them. Its own parts only, as its record names them: what else lies in the folder, others have
 * put there.
 * @throws MrError `not_found` before the first byte where the first part is gone
 */
export async function resultOf(
  store: ObjectStore,
  job: JobView,
): Promise<AsyncIterable<Uint8Array>> {
  const { container, prefix } = locationOf(job.output);
  const spec = { ...job.spec, ...job.spec.steps.at(-1) };
  const { compression } = contractOf(spec);
  const { done: parts } = spec.r_num === 0 ? job.map : job.reduce;
  const nameOf = (index: number) => joinName(prefix, partName(index, extensionOf(compression)));
  const first = parts === 0 ? undefined : await partIn(store, container, nameOf(0));
  async function* bytes(): AsyncIterable<Uint8Array> {
    for (let index = 0; index < parts; index += 1) {
      const name = nameOf(index);
      const { etag } =
        index === 0 && first !== undefined ? first : await partIn(store, container, name);
      yield* expand(compression, name, store.read(container, name, { etag }));
    }
  }
  return bytes();
}

async function partIn(store: ObjectStore, container: string, name: string): Promise<ObjectInfo> {
  const info = await store.head(container, name);
  if (info === undefined)
    throw new MrError("not_found", `${container}/${name}, a part of the result, is gone`);
  return info;
}
