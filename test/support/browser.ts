import { type Browser, chromium } from "playwright-core";

const BROWSER = "/usr/bin/chromium";

/**
 * Debian's chromium, without a window. It reaches this machine only: all names that end in
 * `.test` lead to it, as those of a page would that lets its name lead here.
 */
export async function useBrowser(): Promise<AsyncDisposable & { browser: Browser }> {
  const browser = await chromium.launch({
    executablePath: BROWSER,
    chromiumSandbox: process.getuid?.() !== 0,
    args: [
      "--host-resolver-rules=MAP *.test 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
      ...["--disable-quic", "--no-first-run", "--disable-background-networking"],
      ...["--disable-component-update", "--disable-sync"],
    ],
  });
  return { browser, [Symbol.asyncDispose]: () => browser.close() };
}
