import { randomBytes } from "node:crypto";
import { connect, type OnReadOpts, type Socket } from "node:net";
import { z } from "zod";
import { MrError, messageOf } from "../model/errors.ts";

/** The far end is `internal/runner`, which says what goes over the connections. */
export interface RunnerAddress {
  /** Of its socket: a path, or @NAME. */
  socket: string;
  /** 32 bytes, in hexadecimal: what the runner knows its worker by. */
  secret: string;
  /** Where scripts live; the runner's own, which others need not see. */
  folder: string;
}

const KIND = { hello: "h", request: "c", stdin: "0", stdout: "1", stderr: "2" } as const;

/** One number for all connections of a request. */
export function newNumber(): Buffer {
  return randomBytes(16);
}

/** A connection that has said what it is. */
export function openConnection(
  { socket, secret }: Pick<RunnerAddress, "socket" | "secret">,
  kind: keyof typeof KIND,
  number: Buffer,
  onread?: OnReadOpts,
): Socket {
  const path = socket.startsWith("@") ? `\0${socket.slice(1)}` : socket;
  const connection = connect({ path, allowHalfOpen: true, ...(onread && { onread }) });
  connection.write(Buffer.concat([Buffer.from(secret, "hex"), number, Buffer.from(KIND[kind])]));
  return connection;
}

/** What it says, line by line; ends with it. */
export async function* linesOf(connection: Socket): AsyncGenerator<string> {
  let open = "";
  for await (const chunk of connection) {
    const lines = (open + String(chunk)).split("\n");
    open = lines.pop() ?? "";
    yield* lines;
  }
}

const eventSchema = z.discriminatedUnion("event", [
  z.object({
    event: z.literal("ended"),
    code: z.int().nullable(),
    signal: z.string().nullable(),
    over: z.string().nullable(),
  }),
  z.object({
    event: z.literal("failed"),
    ours: z.boolean(),
    /** The program is not there. */
    absent: z.boolean().default(false),
    message: z.string(),
  }),
  z.object({ event: z.literal("removed") }),
  z.object({ event: z.literal("build"), path: z.string() }),
  z.object({ event: z.literal("ready"), path: z.string() }),
]);

export type RunnerEvent = z.infer<typeof eventSchema>;
type EventOf<Name> = Extract<RunnerEvent, { event: Name }>;

/** A request to the runner, and its answers, of which each is asked for. It is off when this is disposed. */
export class RunnerRequest implements Disposable {
  private readonly connection: Socket;
  private readonly answers: AsyncGenerator<string>;

  constructor(runner: RunnerAddress, number: Buffer, request: object) {
    this.connection = openConnection(runner, "request", number);
    this.connection.on("error", () => undefined);
    this.answers = linesOf(this.connection);
    this.say(request);
  }

  say(message: object): void {
    if (this.connection.writable) this.connection.write(`${JSON.stringify(message)}\n`);
  }

  /**
   * @throws MrError for what could not be done: `not_found` where there is no such program, `user`, or
   * `unavailable`, also when the runner is gone.
   */
  async next<Name extends RunnerEvent["event"]>(...names: Name[]): Promise<EventOf<Name>> {
    const event = await this.answer();
    if (event.event === "failed") {
      const theirs = event.absent ? "not_found" : "user";
      throw new MrError(event.ours ? "unavailable" : theirs, event.message);
    }
    if (!(names as string[]).includes(event.event))
      throw new MrError("internal", `the runner says ${event.event}`);
    return event as EventOf<Name>;
  }

  private async answer(): Promise<RunnerEvent> {
    try {
      const { value, done } = await this.answers.next();
      if (done === true) throw new Error("it has closed the connection");
      return eventSchema.parse(JSON.parse(value));
    } catch (cause) {
      const message = `the runner, which starts scripts, is gone: ${messageOf(cause)}`;
      throw new MrError("unavailable", message, { cause });
    }
  }

  [Symbol.dispose](): void {
    this.connection.destroy();
  }
}
