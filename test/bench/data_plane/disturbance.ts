import type { Round } from "./bench_case.ts";
import { median } from "./stats.ts";

const OTHERS_CORES_MAX = 0.15;
const DRIFT_MAX = 0.2;
/** A shorter run says nothing about others: processors' time is counted in hundredths of seconds. */
const JUDGED_MS = 500;

/** Why a round should not count: others took processors, or the floor is not what it was. */
export function disturbanceOf(
  round: Round,
  before: Round[],
  yardstick: string | undefined,
): string | undefined {
  for (const [name, { wallMs, othersCores }] of round)
    if (wallMs >= JUDGED_MS && othersCores > OTHERS_CORES_MAX)
      return `others took ${othersCores.toFixed(2)} of a processor during ${name}`;
  const now = round.get(yardstick ?? "")?.wallMs;
  const walls = before.flatMap((one) => one.get(yardstick ?? "")?.wallMs ?? []);
  if (now === undefined || walls.length === 0) return undefined;
  const drift = now / median(walls) - 1;
  if (now < JUDGED_MS || Math.abs(drift) <= DRIFT_MAX) return undefined;
  return `${yardstick} drifted by ${(drift * 100).toFixed(0)} %`;
}
