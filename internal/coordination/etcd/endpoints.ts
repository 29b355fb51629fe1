import type { Etcd3 } from "etcd3";
import type { Pem } from "../../model/certificates.ts";
import { MrError, messageOf } from "../../model/errors.ts";
import type { Logger } from "../../model/logger.ts";
import { Attempt } from "./attempt.ts";
import { type CallOptions, clientOf, Endpoint, type Probe } from "./endpoint.ts";
import { type Access, etcdError, isMembersOwn, isStaleLogin, plainWords } from "./failures.ts";
import { Login } from "./login.ts";

/** A call, with all its tries. */
const REQUEST_MS = 2_000;
/** A member that has not answered after so long is overtaken by the next. */
const HEDGE_MS = 300;

/** What is asked of a member; it may be asked of several, at the same time or one after the other. */
export type Body<T> = (client: Etcd3, options: CallOptions) => Promise<T>;

export interface EndpointsOptions {
  /** Comma-separated. */
  address: string;
  user: string;
  password: string | undefined;
  /** Of all keys of ours. */
  prefix: string;
  pem: Pem | undefined;
  probe: Probe;
  logger: Logger | undefined;
}

/**
 * The members of etcd. Every call has one deadline, within which it goes to the member that is
 * known to be well, and on to the next when that one fails, or says nothing for a moment; who was
 * overtaken or failed is asked again only when a probe has found it well. So whatever is called
 * must bear to be done twice, also late.
 */
export class Endpoints {
  readonly login: Login;
  private readonly members: Endpoint[];
  private readonly access: Access;

  /** @throws MrError `invalid` */
  constructor(options: EndpointsOptions) {
    const { user, password, prefix, pem, probe, logger } = options;
    this.access = { user, hasPassword: password !== undefined, prefix };
    this.login = new Login(
      password === undefined ? undefined : () => this.authenticate(user, password),
    );
    const addresses = addressesIn(options.address);
    this.members = addresses.map((address) => {
      const turned = (isWell: boolean, why: string) => tell(logger, address, isWell, why);
      const client = clientOf(address, pem, () => this.login.token);
      return new Endpoint(address, client, addresses.length > 1 ? probe : undefined, turned);
    });
    // Not everybody's calls go to the first.
    const first = Math.floor(Math.random() * this.members.length);
    this.members.push(...this.members.splice(0, first));
  }

  /**
   * @param hedgeMs how long a member may take that is well.
   * @throws MrError `unavailable`, or `internal` if etcd will refuse the same again.
   */
  async call<T>(body: Body<T>, hedgeMs = HEDGE_MS): Promise<T> {
    return this.loggedIn((deadline) => this.inTurn(body, deadline, hedgeMs));
  }

  /** Asks the best two at once, and takes the first answer. @throws as `call` does, when both fail. */
  async callTwo<T>(body: Body<T>): Promise<T> {
    return this.loggedIn(async (deadline) => {
      const tries = this.inOrder()
        .slice(0, 2)
        .map((member) => this.tryOn(member, body, deadline));
      return Promise.any(tries).catch((error: AggregateError) => {
        throw error.errors.find((each) => !isMembersOwn(each)) ?? error.errors[0];
      });
    });
  }

  /** The member to be relied on most. */
  best(): Endpoint {
    return this.inOrder()[0] as Endpoint;
  }

  private inOrder(): Endpoint[] {
    if (this.members.every(({ failures }) => failures === 0)) return this.members;
    return this.members.toSorted((a, b) => a.failures - b.failures);
  }

  private authenticate(name: string, password: string): Promise<string> {
    const body: Body<{ token: string }> = ({ auth }, options) =>
      auth.authenticate({ name, password }, options);
    return this.inTurn(body, Date.now() + REQUEST_MS, REQUEST_MS / 2).then(({ token }) => token);
  }

  private async loggedIn<T>(body: (deadline: number) => Promise<T>): Promise<T> {
    const deadline = Date.now() + REQUEST_MS;
    try {
      await this.login.ready();
      const { token } = this.login;
      return await body(deadline).catch(async (error: unknown) => {
        if (!isStaleLogin(error)) throw error;
        await this.login.renew(token, error);
        return body(deadline);
      });
    } catch (error) {
      throw etcdError(error, this.access);
    }
  }

  private async tryOn<T>(member: Endpoint, body: Body<T>, deadline: number): Promise<T> {
    try {
      return await body(member.client, { deadline });
    } catch (error) {
      if (isMembersOwn(error)) member.failed(messageOf(error));
      throw error;
    }
  }

  private async inTurn<T>(body: Body<T>, deadline: number, hedgeMs: number): Promise<T> {
    const [only, ...others] = this.members;
    const ask = (member: Endpoint) => body(member.client, { deadline });
    if (only !== undefined && others.length === 0) return ask(only);
    return new Attempt(ask, () => this.inOrder(), { deadline, hedgeMs }).answer;
  }

  close(): void {
    for (const member of this.members) member.close();
  }
}

function addressesIn(text: string): string[] {
  const addresses = [...new Set(text.split(",").map((address) => address.trim()))].filter(
    (address) => address !== "",
  );
  if (addresses.length === 0) throw new MrError("invalid", "ETCD_ADDRESS names no address");
  if (new Set(addresses.map((address) => address.startsWith("https:"))).size > 1)
    throw new MrError("invalid", "ETCD_ADDRESS mixes https with addresses in clear text");
  return addresses;
}

function tell(logger: Logger | undefined, member: string, isWell: boolean, why: string): void {
  if (isWell) logger?.info({ member }, "this member of etcd is well again");
  else {
    const error = plainWords(why);
    logger?.warn({ member, error }, "a member of etcd fails; the others are asked first");
  }
}
