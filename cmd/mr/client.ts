import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import { Readable } from "node:stream";
import { setTimeout as delay } from "node:timers/promises";
import { type Args, UsageError } from "./options.ts";

/** The server said no, or could not be reached: the message says it all. */
export class ServerError extends Error {
  readonly status: number;

  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

export interface PhaseJson {
  done: number;
  total: number;
  running: number;
  bytes_done: number;
  bytes_total: number;
  records: number;
}

/** A step of a job: not begun, or a job by itself. */
export interface StepJson {
  id?: string;
  state: string;
  mapper: string;
  reducer: string;
  map?: PhaseJson;
  reduce?: PhaseJson;
}

/** A job as the proxy gives it; one with steps has no mapper and reducer of its own. */
export interface JobJson {
  id: string;
  state: string;
  name: string;
  mapper?: string;
  reducer?: string;
  steps?: StepJson[];
  combiner?: string;
  data: string | string[];
  phase?: string;
  map: PhaseJson;
  shuffle: { bytes_done: number; bytes_total: number };
  reduce: PhaseJson;
  counters: Record<string, number>;
  attempts: { failed: number; lost: number };
  bad_records: number;
  output: string;
  submitted_at: string;
  started_at: string | null;
  finished_at: string | null;
  error?: { class: string; message: string; task: string; attempt: string; log_tail: string };
}

export interface ObjectJson {
  name: string;
  size: number;
  etag: string;
}

export function isFinal(state: string): boolean {
  return state === "succeeded" || state === "failed" || state === "cancelled";
}

const RECONNECTS_MAX = 60;

/** The proxy's HTTP surface, for the commands. */
export class Client {
  readonly server: string;
  private readonly headers: Record<string, string>;

  /** @param token for a proxy that asks for one. */
  constructor(server: string, token?: string) {
    this.server = server.replace(/\/+$/, "");
    this.headers = token === undefined ? {} : { authorization: `Bearer ${token}` };
  }

  static from(args: Args): Client {
    const server = args.text("server") ?? process.env.MR_SERVER ?? "http://127.0.0.1:8080";
    if (!/^https?:\/\/./.test(server) || !URL.canParse(server))
      throw new UsageError(`${server}: the server's URL looks like http://127.0.0.1:8080`);
    // Not an option: other users of the machine see those.
    return new Client(server, process.env.MR_TOKEN || undefined);
  }

  async json<T>(path: string, init: RequestInit = {}): Promise<T> {
    return (await (await this.fetch(path, init)).json()) as T;
  }

  async fetch(path: string, init: RequestInit = {}): Promise<Response> {
    let response: Response;
    try {
      const url = `${this.server}${path}`;
      const isRead = init.method === undefined;
      const request = { ...init, headers: { ...this.headers, ...init.headers } };
      response = await fetch(url, request).catch((error) => {
        // A connection that was kept may have been closed just now by the other side.
        if (!isRead || init.signal?.aborted) throw error;
        return fetch(url, request);
      });
    } catch (error) {
      if (init.signal?.aborted) throw error;
      throw new ServerError(
        0,
        `${this.server} does not answer (${reasonOf(error)}); is it running? mr local starts one here`,
      );
    }
    if (!response.ok) throw await refusal(response);
    return response;
  }

  /** Submits, then yields the job at every change until its final state. */
  async *run(request: object, signal: AbortSignal): AsyncIterable<JobJson> {
    const response = await this.fetch("/request", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(request),
      signal,
    });
    let last: JobJson | undefined;
    try {
      for await (const job of jobLines(response)) {
        last = job;
        yield job;
      }
    } catch (error) {
      if (signal.aborted || last === undefined) throw error;
    }
    if (last === undefined) throw new ServerError(0, "the server's answer was empty");
    if (!isFinal(last.state)) yield* this.watch(last.id, signal);
  }

  /** Follows a job to its end, over broken connections too. */
  async *watch(id: string, signal: AbortSignal): AsyncIterable<JobJson> {
    for (let tries = 0; tries < RECONNECTS_MAX; tries += 1) {
      try {
        const path = `/jobs/${encodeURIComponent(id)}/events`;
        const response = await this.fetch(path, { signal });
        for await (const job of jobLines(response)) {
          tries = 0;
          yield job;
          if (isFinal(job.state)) return;
        }
      } catch (error) {
        const status = error instanceof ServerError ? error.status : 0;
        if (signal.aborted || (status >= 400 && status < 500)) throw error;
      }
      await delay(500, undefined, { signal });
    }
    throw new ServerError(0, `${this.server} has been away for too long; job ${id} may go on`);
  }

  async upload(file: string, container: string, name: string): Promise<void> {
    const { size } = await stat(file);
    const body = size === 0 ? "" : Readable.toWeb(createReadStream(file));
    await this.fetch(storagePath(container, name), {
      method: "PUT",
      body: body as RequestInit["body"],
      headers: { "content-length": String(size) },
      duplex: "half",
    } as RequestInit);
  }

  async list(container: string, prefix: string): Promise<ObjectJson[]> {
    const query = prefix === "" ? "" : `?prefix=${encodeURIComponent(prefix)}`;
    const path = `/storage/${encodeURIComponent(container)}${query}`;
    return (await this.json<{ objects: ObjectJson[] }>(path)).objects;
  }
}

export function storagePath(container: string, name: string): string {
  const segments = name.split("/").map(encodeURIComponent);
  return `/storage/${encodeURIComponent(container)}/${segments.join("/")}`;
}

/** The JSON of each line (NDJSON), or of each `data:` line (SSE). */
async function* jobLines(response: Response): AsyncIterable<JobJson> {
  let rest = "";
  const text = response.body?.pipeThrough(new TextDecoderStream());
  if (text === undefined) return;
  for await (const chunk of text) {
    const lines = (rest + chunk).split("\n");
    rest = lines.pop() ?? "";
    for (const line of lines) {
      const json = line.startsWith("data: ") ? line.slice(6) : line;
      if (json.startsWith("{")) yield JSON.parse(json) as JobJson;
    }
  }
}

async function refusal(response: Response): Promise<ServerError> {
  const text = await response.text();
  try {
    const problem = JSON.parse(text) as {
      detail?: string;
      errors?: { field: string; message: string }[];
    };
    const fields = (problem.errors ?? []).map(({ field, message }) => `\n  ${field}: ${message}`);
    return new ServerError(response.status, `${problem.detail ?? text}${fields.join("")}`);
  } catch {
    return new ServerError(response.status, `${response.status} ${text.slice(0, 500)}`);
  }
}

function reasonOf(error: unknown): string {
  const { cause, message } = error as Error;
  return cause instanceof Error ? cause.message : message;
}
