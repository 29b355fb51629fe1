import type { Writable } from "node:stream";
import { MrError } from "../model/errors.ts";
import type { ByteShare } from "./byte_budget.ts";

/**
 * gRPC on an HTTP/2 stream: each message follows a byte of flags and four of its length. A session is
 * served and dialed with these two instead of Connect's pipelines of async iterators, which cost several
 * times what a message is worth. Everything else goes through Connect.
 */
export const HEAD_BYTES = 5;
/** What holding a chunk costs beside its bytes. */
export const CHUNK_BYTES = 128;

export const GRPC_TYPE = "application/grpc+proto";

/** Cuts what arrives into messages. */
export class FrameReader {
  private readonly bytesMax: number;
  private chunks: Buffer[] = [];
  private held = 0;
  /** What must be there before it is worth looking again. */
  private wanted = HEAD_BYTES;

  private readonly share: ByteShare | undefined;

  /** @param share of what may be held of messages that are not whole; undefined: any amount. */
  constructor(bytesMax: number, share?: ByteShare) {
    this.bytesMax = bytesMax;
    this.share = share;
  }

  /** Whether a message has begun, and not ended. */
  get isWaiting(): boolean {
    return this.held > 0;
  }

  /** @throws MrError `invalid`, `too_many` */
  read(chunk: Buffer): Buffer[] {
    this.held += chunk.length;
    if (this.held < this.wanted) return this.wait(chunk);
    const all = this.chunks.length === 0 ? chunk : Buffer.concat([...this.chunks, chunk]);
    const messages: Buffer[] = [];
    let at = 0;
    this.wanted = HEAD_BYTES;
    while (all.length - at >= HEAD_BYTES) {
      if (all[at] !== 0) throw new MrError("invalid", "session: a compressed message");
      const length = all.readUInt32BE(at + 1);
      if (length > this.bytesMax) throw new MrError("invalid", "session: a message too long");
      const end = at + HEAD_BYTES + length;
      if (end > all.length) {
        this.wanted = end - at;
        break;
      }
      messages.push(all.subarray(at + HEAD_BYTES, end));
      at = end;
    }
    this.chunks = [];
    this.held = all.length - at;
    this.wait(all.subarray(at));
    return messages;
  }

  /** For the rest of a message. A copy is held: a chunk may be a corner of all that was read. */
  private wait(chunk: Buffer): [] {
    if (chunk.length > 0) this.chunks.push(Buffer.from(chunk));
    if (this.share?.holds(this.held + this.chunks.length * CHUNK_BYTES) === false)
      throw new MrError("too_many", "session: too much is held of messages that are not whole");
    return [];
  }
}

/** Sends what is said in one turn of the event loop in one piece. */
export class FrameWriter {
  private readonly stream: Writable;
  private pending: Uint8Array[] = [];

  constructor(stream: Writable) {
    this.stream = stream;
  }

  write(message: Uint8Array): void {
    if (this.pending.length === 0) queueMicrotask(() => this.flush());
    this.pending.push(message);
  }

  flush(): void {
    if (this.pending.length === 0) return;
    const messages = this.pending;
    this.pending = [];
    if (this.stream.destroyed || this.stream.writableEnded) return;
    let bytes = messages.length * HEAD_BYTES;
    for (const { length } of messages) bytes += length;
    const piece = Buffer.allocUnsafe(bytes);
    let at = 0;
    for (const message of messages) {
      piece[at] = 0;
      piece.writeUInt32BE(message.length, at + 1);
      piece.set(message, at + HEAD_BYTES);
      at += HEAD_BYTES + message.length;
    }
    this.stream.write(piece);
  }
}
