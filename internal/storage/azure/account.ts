import type { TokenCredential } from "@azure/identity";
import { BlobServiceClient, type BlockBlobClient, type ContainerClient } from "@azure/storage-blob";
import { MrError } from "../../model/errors.ts";
import { blobNameFault, containerNameFault } from "../../model/names.ts";
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

  /** @param access a connection string, or an identity. */
  constructor(access: string | AzureIdentity, patience: Patience) {
    this.patience = patience;
    this.service = serviceFor(access);
  }

  container(container: string): ContainerClient {
    const fault = containerNameFault(container);
    if (fault !== undefined) throw new MrError("invalid", `container ${container}: ${fault}`);
    return this.service.getContainerClient(container);
  }

  blob(container: string, name: string): BlockBlobClient {
    const fault = blobNameFault(name);
    if (fault !== undefined) throw new MrError("invalid", `${name}: ${fault}`);
    return this.container(container).getBlockBlobClient(name);
  }

  /** The pages of a listing, each tried until it comes. */
  async *pages<P extends { continuationToken?: string }>(
    open: (token: string | undefined, signal: AbortSignal) => AsyncIterableIterator<P>,
  ): AsyncIterable<P> {
    let token: string | undefined;
    do {
      const from = token;
      const { value, done } = await this.patience.call((signal) => open(from, signal).next());
      if (done === true) return;
      yield value;
      token = value.continuationToken;
    } while (token !== undefined && token !== "");
  }
}

function serviceFor(access: string | AzureIdentity): BlobServiceClient {
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
