import { DefaultAzureCredential } from "@azure/identity";
import { MrError } from "../../model/errors.ts";
import type { AzureIdentity } from "./account.ts";

/**
 * A storage account to which the machine, or the pod, is known by what it is: workload identity, managed
 * identity, or whoever has logged in. No key anywhere. In a file of its own, for nobody else loads this library.
 * @param account its name, or its Blob endpoint (https://...) in another cloud.
 * @throws MrError `invalid`
 */
export function identityFor(account: string): AzureIdentity {
  const isName = /^[a-z0-9]{3,24}$/.test(account);
  if (!isName && !(account.startsWith("https://") && URL.canParse(account)))
    throw new MrError(
      "invalid",
      `AZURE_STORAGE_ACCOUNT: ${account} is neither a name (3 to 24 lower-case letters and digits) nor https://...`,
    );
  const endpoint = isName ? `https://${account}.blob.core.windows.net` : account;
  return { endpoint, credential: new DefaultAzureCredential() };
}
