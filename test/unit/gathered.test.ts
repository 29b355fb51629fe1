import assert from "node:assert/strict";
import { describe, it } from "node:test";
import { gathered } from "../../internal/shuffle/gathered.ts";
import { seeded } from "../support/corpus.ts";

const random = seeded(3);
const below = (max: number) => Math.floor(random() * max);

describe("gathered chunks", () => {
  it("are the same bytes in the same order, in fewer pieces; memory may be used again", async () => {
    const sizes = Array.from({ length: 3_000 }, () =>
      below(50) === 0 ? below(200_000) : below(1_500),
    );
    const all = Buffer.from(
      Array.from({ length: sizes.reduce((a, b) => a + b) }, () => below(256)),
    );
    async function* chunks() {
      const reused = Buffer.alloc(200_000);
      let at = 0;
      for (const size of sizes) {
        all.copy(reused, 0, at, at + size);
        at += size;
        yield reused.subarray(0, size);
      }
    }
    const got: Buffer[] = [];
    for await (const chunk of gathered(chunks())) got.push(Buffer.from(chunk));
    assert.ok(Buffer.concat(got).equals(all));
    assert.ok(got.length < 300, `${got.length} pieces`);
  });
});
