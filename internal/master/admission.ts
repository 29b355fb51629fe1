import { MrError, type Violation } from "../model/errors.ts";
import type { JobSpec } from "../model/job.ts";
import { CONTAINER, folderPrefix, locationOf } from "../model/names.ts";
import type { ObjectStore } from "../model/object_store.ts";

/**
 * What only storage can tell of a request, looked up before the job is accepted.
 * @returns the ETags of its scripts and files, by name: the versions the job will run.
 * @throws MrError `invalid` with every field that names something missing.
 */
export async function checkAgainstStorage(
  store: ObjectStore,
  spec: JobSpec,
): Promise<Record<string, string>> {
  const etags: Record<string, string> = {};
  const checkScript = async (field: string, command: string): Promise<Violation | undefined> => {
    const name = command.trim().split(/ +/)[0] ?? "";
    const info = await store.head(CONTAINER.scripts, name);
    if (info === undefined)
      return {
        field,
        message: `there is no ${name} in container ${CONTAINER.scripts}; upload it first`,
      };
    etags[name] = info.etag;
    return undefined;
  };
  const checks = [
    checkScript("mapper", spec.mapper),
    ...(spec.phase !== "map" && spec.r_num > 0 ? [checkScript("reducer", spec.reducer)] : []),
    ...spec.files.map((file, i) => checkScript(`files.${i}`, file)),
    ...(spec.phase === "reduce" ? [] : [checkData(store, spec.data)]),
    ...(spec.output === "" ? [] : [checkOutput(store, spec.output)]),
  ];
  const violations = (await Promise.all(checks)).filter((found) => found !== undefined);
  if (violations.length > 0)
    throw new MrError("invalid", "the request names what is not there", { violations });
  return etags;
}

async function checkData(store: ObjectStore, data: string): Promise<Violation | undefined> {
  const { container, prefix } = locationOf(data);
  if (!(await store.containerExists(container)))
    return { field: "data", message: `there is no container ${container}` };
  // An empty container is an input like any other; a prefix that matches nothing is a slip.
  if (prefix === "" || (await hasAny(store, container, prefix))) return undefined;
  return { field: "data", message: `nothing in container ${container} begins with ${prefix}` };
}

async function checkOutput(store: ObjectStore, output: string): Promise<Violation | undefined> {
  const { container, prefix } = locationOf(output);
  if (!(await store.containerExists(container))) return undefined;
  if (!(await hasAny(store, container, folderPrefix(prefix)))) return undefined;
  return { field: "output", message: `${output} is not empty; results never overwrite anything` };
}

async function hasAny(store: ObjectStore, container: string, prefix: string): Promise<boolean> {
  for await (const _ of store.list(container, prefix)) return true;
  return false;
}
