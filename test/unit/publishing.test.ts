import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { StorageEffects } from "../../internal/master/effects.ts";
import { inLanes } from "../../internal/master/lanes.ts";
import { MrError } from "../../internal/model/errors.ts";
import type { Logger } from "../../internal/model/logger.ts";
import type { Receipt } from "../../internal/model/task.ts";
import { LocalStore } from "../../internal/storage/local/local_store.ts";
import { scratchFolder } from "../support/processes.ts";

/** From some moment on it has no more right to write. */
class RefusingStore extends LocalStore {
  refuses = false;

  override async publish(receipt: Receipt): Promise<void> {
    if (this.refuses) throw new MrError("conflict", "refused");
    await super.publish(receipt);
  }
}

const silent: Logger = { debug() {}, info() {}, warn() {}, error() {} };
const marker = { container: "box", name: "out/_SUCCESS", body: "" };

async function staged(store: LocalStore, name: string): Promise<Receipt> {
  const object = await store.stage("box", name, "job/1");
  await object.write(Buffer.from(name));
  return object.seal();
}

describe("publishing that is refused", () => {
  it("has succeeded where an earlier leader had published all, and is given up where it had not", async () => {
    await using folder = await scratchFolder("publishing");
    const store = new RefusingStore(folder.path);
    await store.ensureContainer("box");
    const receipts = [await staged(store, "out/a"), await staged(store, "out/b")];
    const troubles: string[] = [];
    const stop = new AbortController();
    const effects = new StorageEffects(store, silent, stop.signal, (_, why) => troubles.push(why));
    const publish = () => effects.publish({ kind: "publish", job: "j", receipts, marker });
    await publish();
    store.refuses = true;
    assert.deepEqual(await publish(), []);
    await store.delete("box", "out/a");
    troubles.length = 0;
    await assert.rejects(publish(), /refused/);
    assert.equal(troubles.length, 5);
  });

  it("publishes nothing more once it has failed", async () => {
    let begun = 0;
    let under = 0;
    const work = async (item: number) => {
      begun += 1;
      under += 1;
      await new Promise((resolve) => setImmediate(resolve));
      under -= 1;
      if (item === 3) throw new Error("no");
    };
    await assert.rejects(
      inLanes(
        Array.from({ length: 1_000 }, (_, i) => i),
        work,
      ),
      /no/,
    );
    assert.equal(under, 0);
    const before = begun;
    for (let i = 0; i < 50; i += 1) await new Promise((resolve) => setImmediate(resolve));
    assert.equal(begun, before);
  });
});
