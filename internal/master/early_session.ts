import { MrError } from "../model/errors.ts";
import type {
  WorkerLink,
  WorkerListener,
  WorkerMessage,
  WorkerSessions,
} from "../model/session.ts";

/** Before its welcome a worker has nothing to say but hello. */
const MESSAGES_MAX = 10;

/**
 * A worker that has found the new leader before it has read all records. It waits on its stream
 * instead of coming back again and again, which would take longer for both.
 */
export class EarlySession implements WorkerListener {
  private readonly link: WorkerLink;
  private readonly heard: WorkerMessage[] = [];
  private listener: WorkerListener | undefined;
  private isGone = false;

  constructor(link: WorkerLink) {
    this.link = link;
  }

  hear(message: WorkerMessage): void {
    if (this.listener !== undefined) return this.listener.hear(message);
    if (this.heard.length >= MESSAGES_MAX)
      throw new MrError("invalid", "session: nothing is to be said before the welcome");
    this.heard.push(message);
  }

  gone(): void {
    this.isGone = true;
    this.listener?.gone();
  }

  /** The term has begun. */
  begin(sessions: WorkerSessions): void {
    if (this.isGone) return;
    try {
      this.listener = sessions.attach(this.link);
      for (const message of this.heard) this.listener.hear(message);
    } catch {
      this.giveUp();
    }
  }

  giveUp(): void {
    this.link.close();
  }
}
