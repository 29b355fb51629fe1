/** Settings that are secrets, or hold one. */
const SECRET = /PASSWORD|TOKEN|SECRET|_KEY$/;
/** Parts of a connection string that are. */
const SECRET_PARTS = /(?:AccountKey|SharedAccessSignature)=([^;]+)/gi;
/** Of a shared access signature. */
const SIGNATURE = /\bsig=([^&;]+)/g;
const HIDDEN = "[hidden]";
/** A shorter one would be found everywhere. */
const LENGTH_MIN = 4;

const known = new Set<string>();

/** Takes note of the secrets among a process's settings, so that nothing that it says has one in it. */
export function learnSecrets(settings: Record<string, string | undefined>): void {
  for (const [name, value = ""] of Object.entries(settings)) {
    // A key's file is named, not given.
    if (SECRET.test(name) && !value.startsWith("/")) learn(value);
    for (const [, part = ""] of value.matchAll(SECRET_PARTS)) learn(part);
    for (const [, part = ""] of value.matchAll(SIGNATURE)) learn(part);
  }
}

function learn(secret: string): void {
  if (secret.length < LENGTH_MIN) return;
  const forms = [secret, encodeURIComponent(secret), JSON.stringify(secret).slice(1, -1)];
  for (const form of forms) known.add(form);
}

/** A text for people, without any of them: they come by error messages of libraries, if at all. */
export function redacted(text: string): string {
  let rest = text;
  for (const secret of known) rest = rest.replaceAll(secret, HIDDEN);
  return rest;
}
