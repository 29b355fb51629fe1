import type { CoordinatorModel } from "./coordinator_model.ts";
import type { History } from "./history.ts";
import type { MasterModel } from "./master_model.ts";
import type { Mutation } from "./mutations.ts";
import type { StorageModel } from "./storage_model.ts";
import type { World } from "./world.ts";

/** What every model of a process lives in. */
export interface Scene {
  readonly world: World;
  readonly history: History;
  readonly storage: StorageModel;
  readonly coordinator: CoordinatorModel<MasterModel>;
  /** The deliberate mistake of this run, if any. */
  readonly mutation: Mutation;
}
