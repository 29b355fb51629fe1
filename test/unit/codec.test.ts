import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  existsSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, it } from "node:test";
import {
  constants,
  createZstdCompress,
  gunzipSync,
  gzipSync,
  zstdCompressSync,
  zstdDecompressSync,
} from "node:zlib";
import { compressInto } from "../../internal/codec/compress.ts";
import { decompress, expand } from "../../internal/codec/decompress.ts";
import { SafeFolder } from "../../internal/codec/safe_folder.ts";
import { isArchive, unpackArchive } from "../../internal/codec/unpack.ts";
import { type Compression, extensionOf } from "../../internal/model/contract.ts";
import { MrError } from "../../internal/model/errors.ts";
import { seeded } from "../support/corpus.ts";
import { scratchFolder, until } from "../support/processes.ts";

const random = seeded(23);
const below = (max: number) => Math.floor(random() * max);

const python = (script: string, args: string[] = [], input: Uint8Array | string = "") =>
  execFileSync("python3", ["-c", script, ...args], { input, maxBuffer: 1 << 28 });

const bzip2Sync = (bytes: Uint8Array): Buffer =>
  python(
    "import bz2,sys; sys.stdout.buffer.write(bz2.compress(sys.stdin.buffer.read()))",
    [],
    bytes,
  );

/** With the checksum that other encoders put in too. */
const zstdSync = (bytes: Uint8Array): Buffer =>
  zstdCompressSync(bytes, { params: { [constants.ZSTD_c_checksumFlag]: 1 } });

const FORMATS = {
  ".gz": { compress: (bytes: Uint8Array) => gzipSync(bytes) },
  ".zst": { compress: zstdSync },
  ".bz2": { compress: bzip2Sync },
};
const EXTENSIONS = Object.keys(FORMATS) as (keyof typeof FORMATS)[];

/** Cut in pieces, each of which is wiped once the next is asked for. */
async function* pieces(bytes: Uint8Array, size: () => number): AsyncGenerator<Uint8Array> {
  for (let at = 0; at < bytes.length; ) {
    const piece = Buffer.from(bytes.subarray(at, at + size()));
    at += piece.length;
    yield piece;
    piece.fill(0xee);
  }
}

async function gather(chunks: AsyncIterable<Uint8Array>): Promise<Buffer> {
  const parts: Buffer[] = [];
  for await (const chunk of chunks) parts.push(Buffer.from(chunk));
  return Buffer.concat(parts);
}

const isUserError = (pattern: RegExp) => (error: unknown) => {
  assert.ok(MrError.is(error, "user"), String(error));
  assert.match((error as MrError).message, pattern);
  return true;
};

/** A skippable frame of zstd. */
function skippable(payload: string): Buffer {
  const head = Buffer.alloc(8);
  head.writeUInt32LE(0x184d2a53, 0);
  head.writeUInt32LE(payload.length, 4);
  return Buffer.concat([head, Buffer.from(payload)]);
}

describe("decompression", () => {
  const text = Buffer.from(Array.from({ length: 4_000 }, () => `line ${below(500)}\n`).join(""));

  it("takes parts one after the other, however the bytes are cut", async () => {
    for (const extension of EXTENSIONS) {
      const { compress } = FORMATS[extension];
      const parts = [text, Buffer.from("x"), Buffer.alloc(0), text.subarray(0, 999)];
      const packed = Buffer.concat(parts.map(compress));
      const expected = Buffer.concat(parts);
      const cuts = [() => 1, () => 7, () => 1 + below(3_000), () => packed.length];
      for (const cut of cuts)
        assert.ok(expected.equals(await gather(decompress(`a${extension}`, pieces(packed, cut)))));
    }
  });

  it("takes parts that end exactly where a chunk does, and where they do not", async () => {
    for (const extension of EXTENSIONS) {
      const [one, two] = ["one\n", "two\n"].map((t) => FORMATS[extension].compress(Buffer.from(t)));
      const packed = Buffer.concat([one as Buffer, two as Buffer]);
      for (let cut = 0; cut <= packed.length; cut += 1) {
        let at = 0;
        const sizes = () => (at++ === 0 ? cut : packed.length);
        const out = await gather(decompress(`a${extension}`, pieces(packed, sizes)));
        assert.equal(out.toString(), "one\ntwo\n", `${extension} cut at ${cut}`);
      }
    }
  });

  it("passes over skippable frames of zstd and the zeros after gzip", async () => {
    const [one, two] = [zstdSync(Buffer.from("one\n")), zstdSync(Buffer.from("two\n"))];
    const frames = [skippable("first"), one, skippable(""), skippable("s".repeat(500)), two];
    const padded = [gzipSync("one\n"), Buffer.alloc(700), gzipSync("two\n"), Buffer.alloc(9)];
    for (const size of [1, 10, 100, 10_000]) {
      for (const [name, parts] of [
        ["a.zst", [...frames, skippable("end")]],
        ["a.gz", padded],
      ] as const) {
        const out = await gather(
          decompress(
            name,
            pieces(Buffer.concat(parts), () => size),
          ),
        );
        assert.equal(out.toString(), "one\ntwo\n", `${name}, ${size}`);
      }
    }
  });

  it("gives nothing for nothing, and other names as they are", async () => {
    for (const extension of EXTENSIONS)
      assert.equal(
        (
          await gather(
            decompress(
              `a${extension}`,
              pieces(Buffer.alloc(0), () => 1),
            ),
          )
        ).length,
        0,
      );
    assert.equal(
      (
        await gather(
          decompress(
            "a.txt",
            pieces(gzipSync("x"), () => 4),
          ),
        )
      ).length,
      21,
    );
    assert.equal(
      (
        await gather(
          decompress(
            "gz",
            pieces(Buffer.from("text"), () => 4),
          ),
        )
      ).length,
      4,
    );
  });

  it("refuses what ends too early, at whatever byte", async () => {
    for (const extension of EXTENSIONS) {
      const one = FORMATS[extension].compress(Buffer.from("one one one\n"));
      const packed = Buffer.concat([one, FORMATS[extension].compress(text.subarray(0, 300))]);
      for (let length = 1; length < packed.length; length += 1) {
        const out = gather(
          decompress(
            `a${extension}`,
            pieces(packed.subarray(0, length), () => 50),
          ),
        );
        if (length === one.length) assert.equal((await out).toString(), "one one one\n");
        else
          await assert.rejects(out, isUserError(/^a\.\w+ cannot be decompressed: unexpected end/));
      }
    }
  });

  it("never gives other bytes for damaged ones", async () => {
    for (const extension of EXTENSIONS) {
      const plain = text.subarray(0, 2_000);
      const packed = FORMATS[extension].compress(plain);
      for (let round = 0; round < 200; round += 1) {
        const damaged = Buffer.from(packed);
        const at = below(packed.length);
        damaged[at] = (damaged[at] as number) ^ (1 << below(8));
        const out = gather(
          decompress(
            `a${extension}`,
            pieces(damaged, () => 200),
          ),
        ).catch((error) => {
          isUserError(/^a\.\w+ cannot be decompressed: /)(error);
          return plain;
        });
        assert.ok(plain.equals(await out), `${extension}: bit of byte ${at}`);
      }
      const garbage = Buffer.concat([packed, Buffer.from("garbage after it")]);
      for (const bytes of [garbage, text, Buffer.alloc(100)])
        await assert.rejects(
          gather(
            decompress(
              `a${extension}`,
              pieces(bytes, () => 64),
            ),
          ),
          isUserError(/cannot be decompressed/),
        );
    }
  });

  it("passes on what its source throws, unchanged", async () => {
    for (const error of [new MrError("changed", "gone"), new Error("disk")]) {
      for (const name of ["a.gz", "a.zst", "a.bz2", "a"]) {
        const source = async function* () {
          if (name !== "a") yield FORMATS[name.slice(1) as ".gz"].compress(text).subarray(0, 30);
          throw error;
        };
        await assert.rejects(gather(decompress(name, source())), (thrown) => thrown === error);
      }
    }
  });

  it("closes its source when its consumer stops, or a part is damaged", async () => {
    for (const extension of EXTENSIONS) {
      for (const damage of [false, true]) {
        let isClosed = false;
        const packed = FORMATS[extension].compress(text);
        if (damage) packed.fill(0xff, 0, 20);
        const source = async function* () {
          try {
            while (true) yield packed;
          } finally {
            await new Promise(setImmediate);
            isClosed = true;
          }
        };
        const consumed = (async () => {
          for await (const _ of decompress(`a${extension}`, source())) return;
        })();
        await (damage ? assert.rejects(consumed) : consumed);
        assert.ok(isClosed, extension);
      }
    }
  });

  it("unpacks a gigabyte of zeros as it is asked for, in little memory", async () => {
    const GIGABYTE = 1 << 30;
    const part = Buffer.alloc(1 << 25);
    for (const extension of EXTENSIONS) {
      const packed = FORMATS[extension].compress(part);
      let pulled = 0;
      const source = async function* () {
        while (pulled * part.length < GIGABYTE) {
          pulled += 1;
          yield packed;
        }
      };
      // bzip2 is slow: of its gigabyte an eighth is taken, and then no more.
      const wanted = extension === ".bz2" ? GIGABYTE / 8 : GIGABYTE;
      const before = process.memoryUsage().rss;
      let size = 0;
      let peak = 0;
      for await (const chunk of decompress(`a${extension}`, source())) {
        size += chunk.length;
        // Of bzip2 a whole block is read ahead, which these parts are far from.
        const isAhead = pulled * part.length > size + 2 * part.length;
        assert.ok(extension === ".bz2" || !isAhead, `${extension} reads ahead`);
        if (size % (1 << 24) === 0) peak = Math.max(peak, process.memoryUsage().rss - before);
        if (size >= wanted) break;
      }
      assert.equal(size, wanted);
      assert.ok(peak < 250e6, `${extension} took ${peak} bytes`);
    }
  });

  it("gives what a job has compressed no window larger than ours makes", async () => {
    const bytes = Buffer.alloc(1 << 20, "line\n");
    const parts: Uint8Array[] = [];
    const own = compressInto("zstd", async (chunk) => void parts.push(Buffer.from(chunk)));
    for (let i = 0; i < 32; i += 1) await own.write(bytes);
    await own.end();
    const read = await gather(
      expand(
        "zstd",
        "part",
        pieces(Buffer.concat(parts), () => 65_536),
      ),
    );
    assert.equal(read.length, 32 * bytes.length);
    const wide = createZstdCompress({ params: { [constants.ZSTD_c_windowLog]: 27 } });
    wide.write(bytes);
    wide.end(bytes);
    const large = await gather(wide);
    assert.equal(
      (
        await gather(
          decompress(
            "a.zst",
            pieces(large, () => 9_999),
          ),
        )
      ).length,
      2 << 20,
    );
    await assert.rejects(
      gather(
        expand(
          "zstd",
          "part",
          pieces(large, () => 9_999),
        ),
      ),
      (error) => MrError.is(error, "user"),
    );
  });

  it("lets others run between the blocks of bzip2", async () => {
    const packed = bzip2Sync(Buffer.from(Array.from({ length: 3_000_000 }, () => below(256))));
    let ticks = 0;
    const timer = setInterval(() => {
      ticks += 1;
    }, 1);
    await gather(
      decompress(
        "a.bz2",
        pieces(packed, () => packed.length),
      ),
    );
    clearInterval(timer);
    assert.ok(ticks >= 3, `${ticks} ticks`);
  });
});

describe("compression", () => {
  const KINDS: Compression[] = ["gzip", "zstd"];
  const undo = { gzip: gunzipSync, zstd: zstdDecompressSync };
  const text = Buffer.from(Array.from({ length: 90_000 }, () => `${below(9_999)},x\n`).join(""));

  const packed = async (kind: Compression, cut: () => number, bytes = text): Promise<Buffer> => {
    const out: Uint8Array[] = [];
    const to = compressInto(kind, async (chunk) => void out.push(chunk));
    for await (const piece of pieces(bytes, cut)) await to.write(piece);
    await to.end();
    return Buffer.concat(out);
  };

  it("gives what other programs read, and the same bytes however they are cut", async () => {
    for (const kind of KINDS) {
      const whole = await packed(kind, () => text.length);
      assert.ok(text.equals(undo[kind](whole)));
      assert.ok(whole.length < text.length / 2);
      for (const cut of [() => 1_000, () => 1 + below(100_000)])
        assert.ok(whole.equals(await packed(kind, cut)), `${kind} depends on the cuts`);
      const nothing = await packed(kind, () => 1, Buffer.alloc(0));
      assert.equal(undo[kind](nothing).length, 0);
    }
    assert.equal((await packed("gzip", () => 9_000)).readUInt32LE(4), 0, "a time is in it");
    assert.deepEqual(KINDS.map(extensionOf), [".gz", ".zst"]);
  });

  it("waits for the sink", async () => {
    for (const kind of KINDS) {
      let inSink = 0;
      let most = 0;
      const to = compressInto(kind, async () => {
        inSink += 1;
        most = Math.max(most, inSink);
        await new Promise(setImmediate);
        inSink -= 1;
      });
      const noise = Buffer.from(Array.from({ length: 1_000_000 }, () => below(256)));
      for await (const piece of pieces(noise, () => 300_000)) {
        await to.write(piece);
        assert.equal(inSink, 0);
      }
      await to.end();
      assert.equal(most, 1);
    }
  });

  it("tells what its sink threw, and from then on always", async () => {
    const full = new MrError("unavailable", "no space");
    const noise = Buffer.from(Array.from({ length: 1_000_000 }, () => below(256)));
    for (const kind of KINDS) {
      const to = compressInto(kind, () => Promise.reject(full));
      await assert.rejects(to.write(noise), (error) => error === full);
      await assert.rejects(to.write(noise), (error) => error === full);
      await assert.rejects(to.end(), (error) => error === full);
      const late = compressInto(kind, () => Promise.reject(full));
      await late.write(Buffer.from("little")).catch(() => undefined);
      await assert.rejects(late.end(), (error) => error === full);
    }
  });

  it("can be given up at any time", async () => {
    for (const kind of KINDS) {
      let taken = 0;
      const to = compressInto(kind, async (chunk) => {
        taken += chunk.length;
      });
      const writing = to.write(text);
      to.destroy();
      await assert.rejects(writing, /abandoned/);
      const before = taken;
      await assert.rejects(to.write(text));
      await assert.rejects(to.end());
      assert.equal(taken, before);
      to.destroy();
      compressInto(kind, async () => undefined).destroy();
    }
  });
});

interface Entry {
  name: string;
  /** Of a tar: tarfile's letter. Of a zip: none. */
  type?: "0" | "1" | "2" | "3" | "4" | "5" | "6" | "S" | "Q";
  link?: string;
  data?: string;
  /** Of a zip with the kind of file. */
  mode?: number;
  /** Of a zip; 0: DOS. */
  system?: number;
}

const WRITE_TAR = `
import io, json, sys, tarfile
for a in json.load(sys.stdin):
    mode = "w:gz" if a["path"].endswith("gz") else "w"
    with tarfile.open(a["path"], mode, format=getattr(tarfile, a["format"])) as tar:
        for e in a["entries"]:
            info = tarfile.TarInfo(e["name"])
            info.type = e.get("type", "0").encode()
            info.linkname = e.get("link", "")
            info.mode = e.get("mode", 0o644)
            data = e.get("data", "").encode()
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
`;

const WRITE_ZIP = `
import json, sys, warnings, zipfile
warnings.simplefilter("ignore")
for a in json.load(sys.stdin):
    with zipfile.ZipFile(a["path"], "w", zipfile.ZIP_DEFLATED) as zip:
        for e in a["entries"]:
            info = zipfile.ZipInfo(e["name"])
            info.compress_type = zipfile.ZIP_DEFLATED
            info.external_attr = e.get("mode", 0o100644) << 16
            info.create_system = e.get("system", 3)
            zip.writestr(info, e.get("data", ""))
`;

interface Archive {
  path: string;
  entries: readonly Entry[];
  /** Of a tar. */
  format?: "PAX_FORMAT" | "GNU_FORMAT";
}

function writeArchives(archives: Archive[]): void {
  const all = archives.map((archive) => ({ format: "PAX_FORMAT", ...archive }));
  const [zips, tars] = [true, false].map((isZip) =>
    all.filter(({ path }) => path.endsWith(".zip") === isZip),
  );
  python(WRITE_TAR, [], JSON.stringify(tars));
  python(WRITE_ZIP, [], JSON.stringify(zips));
}

const LIMITS = { bytes: 10_000_000, entries: 1_000 };

/** A place for archives, and beside it the folder that they are unpacked into. */
async function workshop() {
  const folder = await scratchFolder("codec");
  const [archives, into] = ["archives", "into"].map((name) => join(folder.path, name));
  assert.ok(archives !== undefined && into !== undefined);
  await mkdir(archives);
  const at = (name: string) => join(archives, name);
  return {
    path: folder.path,
    into,
    at,
    /** Into an empty folder each time; nothing must be beside it afterwards. */
    unpack: async (name: string, limits = LIMITS) => {
      await rm(into, { recursive: true, force: true });
      await mkdir(into);
      const before = readdirSync(archives).toSorted();
      try {
        await unpackArchive(at(name), name, into, limits);
      } finally {
        assert.deepEqual(readdirSync(folder.path).toSorted(), ["archives", "into"]);
        assert.deepEqual(readdirSync(archives).toSorted(), before);
      }
    },
    [Symbol.asyncDispose]: () => folder[Symbol.asyncDispose](),
  };
}

const modeOf = (path: string) => statSync(path).mode & 0o7777;

describe("archives", () => {
  it("are known by their names", () => {
    const names = ["a.tar", "a.tar.gz", "a.tgz", "a.zip", "a.gz", "tar", "a.tar.bz2", "a.zip.txt"];
    assert.deepEqual(names.filter(isArchive), names.slice(0, 4));
  });

  it("are unpacked with folders, links and executable bits", async () => {
    await using shop = await workshop();
    const long = `long/${"n".repeat(120)}/${"m".repeat(90)}.txt`;
    const files: Entry[] = [
      { name: "./pkg/", type: "5", mode: 0o000 },
      { name: "./pkg/run.py", data: "print(1)\n", mode: 0o4755 },
      { name: "pkg/data.txt", data: "d".repeat(100_000), mode: 0o2400 },
      { name: "implied/by/a/path", data: "" },
      { name: long, data: "long" },
      { name: "höhe/日本.txt", data: "unicode" },
    ];
    const links: Entry[] = [
      { name: "pkg/latest", type: "2", link: "data.txt" },
      { name: "implied/up", type: "2", link: "../pkg/./run.py" },
      { name: "implied/by/round", type: "2", link: "../../pkg/../implied/by" },
      { name: "through", type: "2", link: "implied/by/round/a/path" },
      { name: "dangling", type: "2", link: "not/there" },
      { name: "hard", type: "1", link: "./pkg/run.py" },
      { name: "hard link to a link", type: "1", link: "pkg/latest" },
    ];
    for (const [name, format] of [
      ["a.tar", "PAX_FORMAT"],
      ["b.tar.gz", "GNU_FORMAT"],
      ["c.tgz", "PAX_FORMAT"],
    ] as const) {
      writeArchives([{ path: shop.at(name), entries: [...files, ...links], format }]);
      await shop.unpack(name);
      const at = (path: string) => join(shop.into, path);
      assert.equal(readFileSync(at("pkg/run.py"), "utf8"), "print(1)\n");
      assert.equal(readFileSync(at("pkg/latest"), "utf8").length, 100_000);
      assert.equal(readFileSync(at("implied/up"), "utf8"), "print(1)\n");
      assert.equal(readFileSync(at("through"), "utf8"), "");
      assert.equal(readFileSync(at(long), "utf8"), "long");
      assert.equal(readFileSync(at("höhe/日本.txt"), "utf8"), "unicode");
      assert.equal(readlinkSync(at("dangling")), "not/there");
      assert.equal(readlinkSync(at("hard link to a link")), "data.txt");
      assert.equal(statSync(at("hard")).ino, statSync(at("pkg/run.py")).ino);
      assert.equal(modeOf(at("pkg/run.py")), 0o755, "set-user-ID");
      assert.equal(modeOf(at("pkg/data.txt")), 0o644);
      assert.equal(modeOf(at("pkg")), 0o755);
    }
    const zipped = files.map((file) => ({
      ...file,
      mode: file.name.endsWith("/") ? 0o040000 : 0o100000 | (file.mode ?? 0o644),
    }));
    const link = { name: "implied/link", mode: 0o120777, data: "../pkg/run.py" };
    const noMode = { name: "dos.txt", mode: 0o100777, system: 0, data: "dos" };
    writeArchives([{ path: shop.at("a.zip"), entries: [...zipped, link, noMode] }]);
    await shop.unpack("a.zip");
    assert.equal(readFileSync(join(shop.into, "implied/link"), "utf8"), "print(1)\n");
    assert.equal(modeOf(join(shop.into, "pkg/run.py")), 0o755);
    assert.equal(modeOf(join(shop.into, "dos.txt")), 0o644);
    assert.equal(modeOf(join(shop.into, "pkg")), 0o755);
    assert.equal(readFileSync(join(shop.into, "höhe/日本.txt"), "utf8"), "unicode");
  });

  const HOSTILE: Record<string, [Entry[], RegExp]> = {
    "an absolute path": [[{ name: "/tmp/x" }], /"\/tmp\/x" is no relative path/],
    "a way up": [[{ name: "a/../../x" }], /"a\/..\/..\/x" has ".." in its path/],
    "a way up alone": [[{ name: ".." }], /has ".." in its path/],
    "a folder above": [[{ name: "../x", type: "5" }], /has ".." in its path/],
    "a Windows path": [[{ name: "C:/x" }], /"C:\/x" is no relative path/],
    backslashes: [[{ name: "..\\x" }], /"..\\\\x" is no relative path/],
    "a name of 5000": [[{ name: "n".repeat(5_000) }], /"n{200}\.\.\." has too long a path/],
    "a path of 5000": [[{ name: `${"n".repeat(249)}/`.repeat(20) }], /has too long a path/],
    "no name": [[{ name: ".", data: "x" }], /"." has no name/],
    "a hard link to all": [[{ name: "a", type: "1", link: "." }], /which is no file before it/],
    "a link to a place outside": [
      [{ name: "a", type: "2", link: "/etc" }],
      /"a" is a link to "\/etc", which is outside/,
    ],
    "a link up": [[{ name: "a", type: "2", link: ".." }], /link to "..", which is outside/],
    "a link up and back": [[{ name: "a", type: "2", link: "../into/b" }], /which is outside/],
    "a link from deep": [[{ name: "a/b/c", type: "2", link: "../../../x" }], /which is outside/],
    "a link without a target": [
      [{ name: "a", type: "2", link: "\u0000" }],
      /outside|damaged|unpacked/,
    ],
    "a link with backslashes": [[{ name: "a", type: "2", link: "..\\.." }], /which is outside/],
    "an entry behind a link out": [
      [{ name: "a", type: "2", link: "/etc" }, { name: "a/x" }],
      /"a" is a link to "\/etc", which is outside/,
    ],
    "an entry behind a link": [
      [{ name: "a", type: "2", link: "b" }, { name: "b/", type: "5" }, { name: "a/x" }],
      /"a\/x" lies behind the link "a"/,
    ],
    "a folder behind a link": [
      [
        { name: "a", type: "2", link: "." },
        { name: "a/x", type: "5" },
      ],
      /lies behind the link "a"/,
    ],
    "a link to here, and up behind it": [
      [{ name: "a", type: "2", link: "." }, { name: "a/../../x" }],
      /has ".." in its path/,
    ],
    "a link up behind a link": [
      [
        { name: "d/s", type: "2", link: ".." },
        { name: "e", type: "2", link: "d/s/.." },
      ],
      /"e" is a link to "d\/s\/..", which is outside/,
    ],
    "a link up behind what is not there": [
      [{ name: "e", type: "2", link: "d/../x" }],
      /which is outside/,
    ],
    "links that lead in a circle, and up": [
      [
        { name: "a", type: "2", link: "b/.." },
        { name: "b", type: "2", link: "a/.." },
      ],
      /which is outside/,
    ],
    "links that double": [
      [
        { name: "f", data: "" },
        ...Array.from({ length: 40 }, (_, i) => ({
          name: `l${i + 1}`,
          type: "2" as const,
          link: i === 0 ? "." : `l${i}/l${i}`,
        })),
      ],
      /which is outside/,
    ],
    "a link without an end": [
      [{ name: "a", type: "2", link: "x/".repeat(3_000) }],
      /"a" has too long a path/,
    ],
    "a hard link out": [
      [{ name: "a", type: "1", link: "/etc/passwd" }],
      /link to "\/etc\/passwd": it is no relative path/,
    ],
    "a hard link up": [
      [{ name: "a", type: "1", link: "../a.tar" }],
      /"a" is a link to "..\/a.tar": it has ".."/,
    ],
    "a hard link to nothing": [[{ name: "a", type: "1", link: "b" }], /which is no file before it/],
    "a hard link to a folder": [
      [
        { name: "b", type: "5" },
        { name: "a", type: "1", link: "b" },
      ],
      /which is no file before it/,
    ],
    "a hard link behind a link": [
      [{ name: "l", type: "2", link: "." }, { name: "f" }, { name: "a", type: "1", link: "l/f" }],
      /which is no file before it/,
    ],
    "a hard link in place of where it leads": [
      [{ name: "d/f" }, { name: "d", type: "1", link: "d/f" }],
      /which is no file before it/,
    ],
    "a character device": [[{ name: "a", type: "3" }], /"a" is a device/],
    "a block device": [[{ name: "a", type: "4" }], /"a" is a device/],
    "a named pipe": [[{ name: "a", type: "6" }], /"a" is a named pipe/],
    "a sparse file": [[{ name: "a", type: "S" }], /"a" is a sparse file/],
    "what nobody knows": [[{ name: "a", type: "Q" }], /"a" is of a kind that is not known/],
    "a file in a file": [
      [{ name: "a", data: "x" }, { name: "a/b" }],
      /"a\/b" lies in "a", which is no folder/,
    ],
  };

  it("are refused when their links take too long to follow", async () => {
    await using shop = await workshop();
    const limits = { bytes: 1, entries: 20_000 };
    const folder = new SafeFolder(shop.into, "an archive", limits);
    await folder.addSymbolicLink("l0", ".");
    for (let i = 1; i < 10; i += 1) await folder.addSymbolicLink(`l${i}`, `l${i - 1}/l${i - 1}`);
    for (let i = 0; i < 12_000; i += 1) await folder.addSymbolicLink(`m${i}`, "l8");
    await assert.rejects(folder.finish(), /is a link to/);
  });

  it("are refused when a tar is hostile, and nothing lies outside", async () => {
    await using shop = await workshop();
    const cases = Object.entries(HOSTILE).flatMap(([what, [entries, message]]) =>
      (["PAX_FORMAT", "GNU_FORMAT"] as const).map((format) => ({
        name: `${what}, ${format}.tar`,
        entries,
        message,
        format,
      })),
    );
    writeArchives(cases.map((archive) => ({ ...archive, path: shop.at(archive.name) })));
    for (const { name, message } of cases)
      await assert.rejects(shop.unpack(name), isUserError(message), name);
    assert.ok(!existsSync("/tmp/x"));
  });

  it("are refused when a zip is hostile", async () => {
    await using shop = await workshop();
    const cases: [Entry[], RegExp][] = [
      [[{ name: "/tmp/x" }], /is no relative path/],
      [[{ name: "../x" }], /has ".." in its path/],
      [[{ name: "..\\x" }], /is no relative path/],
      [[{ name: "C:\\x" }], /is no relative path/],
      [[{ name: "../up/" }], /has ".." in its path/],
      [[{ name: "n".repeat(5_000) }], /has too long a path/],
      [[{ name: "a", mode: 0o120777, data: "/etc" }], /which is outside/],
      [[{ name: "a", mode: 0o120777, data: "../x" }], /which is outside/],
      [[{ name: "a", mode: 0o120777, data: "x".repeat(5_000) }], /the target of a link has no end/],
      [[{ name: "a", mode: 0o120777, data: "." }, { name: "a/x" }], /behind the link/],
      [[{ name: "a", mode: 0o010644 }], /is a device, a named pipe or a socket/],
      [[{ name: "a", mode: 0o020644 }], /is a device, a named pipe or a socket/],
    ];
    writeArchives(cases.map(([entries], i) => ({ path: shop.at(`${i}.zip`), entries })));
    for (const [i, [entries, message]] of cases.entries())
      await assert.rejects(shop.unpack(`${i}.zip`), isUserError(message), JSON.stringify(entries));
  });

  it("are refused when a zip is encrypted or says what is not so", async () => {
    await using shop = await workshop();
    const path = shop.at("a.zip");
    writeArchives([{ path, entries: [{ name: "a", data: "z".repeat(5_000) }] }]);
    const honest = readFileSync(path);
    const patched = async (patch: (zip: Buffer, central: number) => void) => {
      const zip = Buffer.from(honest);
      patch(zip, zip.indexOf("PK\x01\x02", 0, "latin1"));
      writeFileSync(path, zip);
      await shop.unpack("a.zip");
    };
    const encrypted = patched((zip, central) => {
      zip.writeUInt16LE(1, central + 8);
      zip.writeUInt16LE(1, 6);
    });
    await assert.rejects(encrypted, isUserError(/entry "a" is encrypted/));
    const smaller = patched((zip, central) => zip.writeUInt32LE(10, central + 24));
    await assert.rejects(smaller, isUserError(/too many bytes/));
    const other = patched((zip, central) => zip.writeUInt32LE(99, central + 16));
    await assert.rejects(other, isUserError(/checksum/));
    const method = patched((zip, central) => zip.writeUInt16LE(14, central + 10));
    await assert.rejects(method, isUserError(/compressed by method 14/));
    const elsewhere = patched((zip, central) => zip.writeUInt32LE(0xfffffff0, central + 42));
    await assert.rejects(elsewhere, isUserError(/cannot be unpacked/));
    // The library throws here where nobody can catch it, had it its own way of reading.
    const beyond = Buffer.alloc(42);
    beyond.writeUInt32LE(0x07064b50, 0);
    beyond.fill(0xff, 8, 16);
    beyond.writeUInt32LE(0x06054b50, 20);
    writeFileSync(path, beyond);
    await assert.rejects(shop.unpack("a.zip"), isUserError(/unexpected end of file/));
  });

  it("are bounded in bytes and entries, whatever they say themselves", async () => {
    await using shop = await workshop();
    const data = "1".repeat(1_000_000);
    const many = Array.from({ length: 60 }, (_, i) => ({ name: `f${i}` }));
    const over = isUserError(/unpacks to more than 1000000 bytes \(the limit\)/);
    const tooMany = isUserError(/unpacks to more than 50 entries \(the limit\)/);
    const cases: [Entry[], typeof over | undefined][] = [
      [[{ name: "one", data }], undefined],
      [
        [
          { name: "one", data },
          { name: "more", data: "1" },
        ],
        over,
      ],
      [
        [
          { name: "same", data },
          { name: "same", data },
        ],
        over,
      ],
      [many.slice(0, 50), undefined],
      [many, tooMany],
      [[{ name: `${"d/".repeat(60)}f` }], tooMany],
      [many.map(() => ({ name: "same" })), tooMany],
      [many.map(() => ({ name: "same/", type: "5", mode: 0o040755 })), tooMany],
    ];
    const archives = cases.flatMap(([entries, refused], i) =>
      ["tar", "tar.gz", "zip"].map((kind) => ({ name: `${i}.${kind}`, entries, refused })),
    );
    writeArchives(archives.map((archive) => ({ ...archive, path: shop.at(archive.name) })));
    for (const { name, refused } of archives) {
      const unpacking = shop.unpack(name, { bytes: 1_000_000, entries: 50 });
      await (refused === undefined ? unpacking : assert.rejects(unpacking, refused, name));
    }
    // Padding without an end.
    writeFileSync(shop.at("a.tgz"), gzipSync(Buffer.alloc(50_000_000)));
    await assert.rejects(shop.unpack("a.tgz", { bytes: 1_000_000, entries: 50 }), over);
  });

  it("are refused when damaged or cut, at whatever byte", async () => {
    await using shop = await workshop();
    const entries = [
      { name: "one", data: "1".repeat(700) },
      { name: "d/two", data: Buffer.from(Array.from({ length: 600 }, () => below(90))).toString() },
    ];
    for (const name of ["a.tar", "a.tar.gz", "a.zip"]) {
      const path = shop.at(name);
      writeArchives([{ path, entries }]);
      const whole = readFileSync(path);
      // Of a tar the end mark may lack its padding.
      const end = name === "a.tar" ? whole.indexOf(Buffer.alloc(1_024)) + 511 : whole.length;
      for (let length = 0; length < end; length += 1 + below(40)) {
        await writeFile(path, whole.subarray(0, length));
        await assert.rejects(shop.unpack(name), isUserError(/cannot be (unpacked|decompressed)/));
      }
      for (let round = 0; round < 150; round += 1) {
        const damaged = Buffer.from(whole);
        for (let n = 1 + below(4); n > 0; n -= 1) damaged[below(end)] = below(256);
        await writeFile(path, damaged);
        await shop.unpack(name).catch(isUserError(/./));
      }
    }
    for (const name of ["b.tar", "b.zip", "b.tgz"]) {
      writeFileSync(shop.at(name), "no archive at all, but some words ".repeat(50));
      await assert.rejects(shop.unpack(name), isUserError(/^b\.\w+ cannot be/));
    }
    await assert.rejects(shop.unpack("missing.tar"), { code: "ENOENT" });
  });

  it("give the later of two entries with one path, of whatever kinds", async () => {
    await using shop = await workshop();
    const file = (name: string, data: string): Entry => ({ name, data });
    const link = (name: string, to: string): Entry => ({ name, type: "2", link: to });
    const entries = [
      file("f", "first, and longer"),
      { name: "second name", type: "1", link: "f" },
      file("f", "later"),
      file("d/x", "below"),
      link("d/l", "x"),
      file("d", "now a file"),
      link("l", "f"),
      file("l", "no link any more"),
      file("to be a link", "x"),
      link("to be a link", "f"),
      link("e", "f"),
      { name: "e", type: "5" },
      file("e/x", "in a folder"),
      { name: "same", type: "1", link: "f" },
      { name: "same", type: "1", link: "same" },
    ] as const;
    const twice = [file("f", "first"), file("f", "later")];
    writeArchives([
      { path: shop.at("a.tar"), entries },
      { path: shop.at("a.zip"), entries: twice },
    ]);
    await shop.unpack("a.tar");
    const read = (name: string) => readFileSync(join(shop.into, name), "utf8");
    assert.equal(read("f"), "later");
    assert.equal(read("second name"), "first, and longer");
    assert.equal(read("d"), "now a file");
    assert.equal(read("l"), "no link any more");
    assert.ok(lstatSync(join(shop.into, "to be a link")).isSymbolicLink());
    assert.equal(read("e/x"), "in a folder");
    assert.equal(read("same"), "later");
    await shop.unpack("a.zip");
    assert.equal(read("f"), "later");
  });

  it("leave no file open", async () => {
    await using shop = await workshop();
    const open = () => {
      const links = readdirSync("/proc/self/fd").map((fd) => {
        try {
          return readlinkSync(`/proc/self/fd/${fd}`);
        } catch {
          return "";
        }
      });
      return links.filter((path) => path.startsWith(shop.path));
    };
    for (const name of ["a.tar", "a.tgz", "a.zip"]) {
      const entries = [{ name: "a", data: "1".repeat(500_000) }, { name: "../x" }];
      writeArchives([{ path: shop.at(name), entries }]);
      await assert.rejects(shop.unpack(name));
      await assert.rejects(shop.unpack(name, { bytes: 1_000, entries: 5 }));
    }
    await until("all files closed", () => open().length === 0);
  });
});
