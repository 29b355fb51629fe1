import type { TokenCredential } from "@azure/identity";
import { BlobServiceClient, type BlockBlobClient, type ContainerClient } from "@azure/storage-blob";
import { MrError } from "../../model/errors.ts";
import { blobNameFault, containerNameFault, foundNameFault } from "../../model/names.ts";
import { type Asked, type Service, shown } from "./answers.ts";
import type { Patience } from "./patience.ts";

/** How to be let in without a key. */
export interface AzureIdentity {
  endpoint: string;
  credential: TokenCredential;
}

// All tries are ours: the SDK's know neither stalled bodies nor our deadline.
const OPTIONS = { retryOptions: { maxTries: 1 } };

/** The SDK's clients, for names that are good, and without tries of their own. */
export class Account {
  readonly service: BlobServiceClient;
  private readonly patience: Patience;

  constructor(service: BlobServiceClient, patience: Patience) {
    this.service = service;
    this.patience = patience;
  }

  container(container: string): ContainerClient {
    const fault = containerNameFault(container);
    if (fault !== undefined) throw new MrError("invalid", `container ${container}: ${fault}`);
    return this.service.getContainerClient(container);
  }

  /** To be written, under a name that is good everywhere. */
  blob(container: string, name: string): BlockBlobClient {
    const fault = blobNameFault(name);
    if (fault !== undefined) throw new MrError("invalid", `${shown(name)}: ${fault}`);
    return this.container(container).getBlockBlobClient(name);
  }

  /**
   * To be read: also under a name that others gave it, and that could not be a file's.
   * @throws MrError `denied` where a URL would mean another blob.
   */
  found(container: string, name: string): BlockBlobClient {
    const fault = foundNameFault(name);
    if (fault === undefined) return this.container(container).getBlockBlobClient(name);
    throw new MrError("denied", `storage: reading ${container}/${shown(name)}: ${fault}`);
  }

  /** The pages of a listing, each tried until it comes. */
  async *pages<P extends { continuationToken?: string }>(
    asked: Asked,
    open: (token: string | undefined, signal: AbortSignal) => AsyncIterableIterator<P>,
  ): AsyncIterable<P> {
    let token: string | undefined;
    do {
      const from = token;
      const { value, done } = await this.patience.call(asked, (signal) =>
        open(from, signal).next(),
      );
      if (done === true) return;
      yield value;
      token = value.continuationToken;
    } while (token !== undefined && token !== "");
  }
}

/** What is said of it when it does not answer, or refuses; no secret. */
export function describeService({ url }: BlobServiceClient): Service {
  const { host, searchParams } = new URL(url);
  const end = searchParams.get("se");
  return { host, sasEndsMs: end === null ? undefined : Date.parse(end) };
}

/** @param access a connection string, or an identity. */
export function serviceFor(access: string | AzureIdentity): BlobServiceClient {
  if (typeof access !== "string")
    return new BlobServiceClient(access.endpoint, access.credential, OPTIONS);
  try {
    return BlobServiceClient.fromConnectionString(access, OPTIONS);
  } catch {
    // The SDK's own message may quote the string, and with it the key.
    throw new MrError("invalid", "the Blob connection string is not valid");
  }
}

/** A listing gives etags bare, a response header quoted. */
export function plainEtag(etag: string | undefined): string {
  return (etag ?? "").replaceAll('"', "");
}
