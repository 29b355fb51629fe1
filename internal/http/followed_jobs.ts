import { EventEmitter, once } from "node:events";
import { MrError } from "../model/errors.ts";
import { isFinal } from "../model/job.ts";
import type { JobApi } from "../model/job_api.ts";
import { jobJson } from "./job_json.ts";
import { jsonText } from "./json.ts";

/** What a follower is told: the job as it is now. */
export interface Line {
  json: string;
  isLast: boolean;
}

/**
 * The jobs that clients follow here. A thousand may follow one: the leader is asked for it once,
 * and each of its views is written as JSON once.
 */
export class FollowedJobs {
  private readonly jobs: Pick<JobApi, "watch">;
  private readonly feeds = new Map<string, Feed>();

  constructor(jobs: Pick<JobApi, "watch">) {
    this.jobs = jobs;
  }

  /**
   * The job as it is, and then at every change until its final state; who is slow gets the newest.
   * @throws MrError as `JobApi.watch`; what `signal` was aborted with
   */
  async *follow(id: string, signal: AbortSignal): AsyncGenerator<Line, void, undefined> {
    const feed = this.feeds.get(id) ?? this.open(id);
    feed.followers += 1;
    try {
      for (let seen: Line | undefined; seen?.isLast !== true; ) {
        signal.throwIfAborted();
        if (feed.newest !== undefined && feed.newest !== seen) {
          seen = feed.newest;
          yield seen;
        } else if (feed.end !== undefined) throw feed.end.cause;
        else await once(feed.changes, "change", { signal }).catch(() => undefined);
      }
    } finally {
      feed.followers -= 1;
      if (feed.followers === 0) this.close(id, feed);
    }
  }

  private open(id: string): Feed {
    const feed = new Feed();
    this.feeds.set(id, feed);
    void feed.run(this.jobs.watch(id, feed.over.signal)).then(() => this.close(id, feed));
    return feed;
  }

  /** Whoever follows from now on asks anew. */
  private close(id: string, feed: Feed): void {
    feed.over.abort();
    if (this.feeds.get(id) === feed) this.feeds.delete(id);
  }
}

/** One job, as the leader tells of it. */
class Feed {
  readonly over = new AbortController();
  readonly changes = new EventEmitter().setMaxListeners(0);
  newest: Line | undefined;
  /** Why no more comes. */
  end: { cause: unknown } | undefined;
  followers = 0;

  async run(views: ReturnType<JobApi["watch"]>): Promise<void> {
    try {
      for await (const view of views) {
        this.newest = { json: jsonText(jobJson(view)), isLast: isFinal(view.state) };
        this.changes.emit("change");
      }
      this.end = { cause: new MrError("unavailable", "the job cannot be watched just now") };
    } catch (cause) {
      this.end = { cause };
    }
    this.changes.emit("change");
  }
}
