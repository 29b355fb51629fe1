import { BlobServiceClient, type BlockBlobClient, type ContainerClient } from "@azure/storage-blob";
import { MrError } from "../../model/errors.ts";
import { blobNameFault, containerNameFault } from "../../model/names.ts";
import type { Patience } from "./patience.ts";

/** The SDK's clients, for names that are good, and without tries of their own. */
export class Account {
  readonly service: BlobServiceClient;
  private readonly patience: Patience;

  constructor(connectionString: string, patience: Patience) {
    this.patience = patience;
    try {
      this.service = BlobServiceClient.fromConnectionString(connectionString, {
        // All tries are ours: the SDK's know neither stalled bodies nor our deadline.
        retryOptions: { maxTries: 1 },
      });
    } catch {
      // The SDK's own message may quote the string, and with it the key.
      throw new MrError("invalid", "the Blob connection string is not valid");
    }
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

/** A listing gives etags bare, a response header quoted. */
export function plainEtag(etag: string | undefined): string {
  return (etag ?? "").replaceAll('"', "");
}
